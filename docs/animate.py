"""Draw docs/pictures/overlay.gif: slices of a held-out synthetic patient with the mask and the true outline.

Writes a cohort, trains experiments/demo.yaml on it (a few minutes on two CPU cores) and keeps nothing but the picture.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

ROOT = Path(__file__).parents[1]
PREDICTED, TRUE, INK = (229, 57, 53), (66, 133, 244), (235, 235, 235)
SIDE, GAP, HEAD = 240, 8, 24
FRAME_MS, HOLD_MS = 200, 900
PATIENTS = 12


def main() -> None:
    """Train, predict and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "overlay.gif")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLIOFLOW_HOME"] = str(Path(folder) / "home")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        image, truth, mask, dice = segment(Path(folder), given.epochs)
    draw(image, truth, mask, given.out)
    print(f"{given.out}: {given.out.stat().st_size // 1024} KiB, Dice of this patient {dice:.3f}")


def segment(folder: Path, epochs: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_], float]:
    """Return FLAIR (S, H, W), the true and the predicted mask of a test patient, and their Dice."""
    import glioflow as gf
    from glioflow.data.formats.detect import open_cohort

    gf.synthesize("lgg", folder / "cohort", patients=PATIENTS, seed=4, size=128)
    cohort = open_cohort(folder / "cohort")
    ids = [each.id for each in cohort.cases]
    parts = {"train": ids[4:], "val": ids[2:4], "test": ids[:2]}
    (folder / "split.json").write_text(json.dumps(parts))
    changes = {
        "split": {"method": "file", "file": str(folder / "split.json")},
        "preprocess": [{"step": "unit"}, {"step": "resize", "size": 128}],
        "training.epochs": epochs,
    }
    run = gf.train(ROOT / "experiments" / "demo.yaml", folder / "cohort", overrides=changes)
    case = cohort.reader(cohort.cases[0])
    mask = gf.load(run).predict(case).mask > 0
    truth = case.mask > 0
    dice = 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    return case.image[..., 1], truth, mask, float(dice)


def draw(image: NDArray[np.uint8], truth: NDArray[np.bool_], mask: NDArray[np.bool_], out: Path) -> None:
    """Write the slices around the tumor, from bottom to top, as a GIF that repeats."""
    shown = np.flatnonzero((truth | mask).any(axis=(1, 2)))
    order = range(max(shown[0] - 2, 0), min(shown[-1] + 3, len(image)))
    rows, columns = (np.flatnonzero((image > 20).any(axis=(0, axis))) for axis in (2, 1))
    middle, half = (rows[0] + rows[-1]) // 2, max(rows[-1] - rows[0], columns[-1] - columns[0]) // 2 + 3
    center = (columns[0] + columns[-1]) // 2
    head = np.s_[max(middle - half, 0) : middle + half, max(center - half, 0) : center + half]
    pictures = [_frame(image[n][head], truth[n][head], mask[n][head], n + 1, len(image)) for n in order]
    packed = [picture.quantize(palette=_palette(), dither=Image.Dither.NONE) for picture in pictures]
    times = [FRAME_MS] * (len(pictures) - 1) + [HOLD_MS]
    out.parent.mkdir(parents=True, exist_ok=True)
    packed[0].save(out, save_all=True, append_images=packed[1:], duration=times, loop=0, optimize=True)


def _palette() -> Image.Image:
    """Return few colors, so that the file is small: grays, the same under the mask, and those of lines and letters."""
    grays = [(value, value, value) for value in range(0, 256, 10)]
    under = [tuple(int(value) for value in _tinted(np.array([gray]))[0]) for gray in grays[:20]]
    colors = [*grays, *under, PREDICTED, TRUE, INK]
    picture = Image.new("P", (1, 1))
    picture.putpalette([value for color in colors for value in color])
    return picture


def _tinted(pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    return (0.55 * pixels + 0.45 * np.array(PREDICTED)).astype(np.uint8)


def _frame(image: NDArray[np.uint8], truth: NDArray[np.bool_], mask: NDArray[np.bool_], n: int, of: int) -> Image.Image:
    plain = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    plain = np.repeat(plain[..., None], 3, axis=-1)
    laid = plain.copy()
    red, blue = (np.asarray(Image.fromarray(part).resize((SIDE, SIDE))) for part in (mask, truth))
    laid[red] = _tinted(laid[red])
    laid[find_boundaries(blue, mode="inner")] = TRUE
    canvas = Image.new("RGB", (2 * SIDE + GAP, SIDE + HEAD), "black")
    canvas.paste(Image.fromarray(plain), (0, HEAD))
    canvas.paste(Image.fromarray(laid), (SIDE + GAP, HEAD))
    pen = ImageDraw.Draw(canvas)
    pen.text((6, 7), f"FLAIR, slice {n} of {of}", fill=INK)
    pen.text((SIDE + GAP + 6, 7), "network", fill=PREDICTED)
    pen.text((SIDE + GAP + 66, 7), "truth", fill=TRUE)
    return canvas


if __name__ == "__main__":
    main()
