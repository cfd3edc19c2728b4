"""Preparing, loading and reading a cohort beside the plain ways, interleaved; writes nothing but temporary folders.

GLIOFLOW_DATA=... python benchmarks/data.py [--patients 65] [--repeats 3] [--port-patients 5]
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from other_augmentation import light_for_slices

from glioflow import cluster
from glioflow.data.batches.sampling import SliceBatches
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.formats import lgg, lgg_pixels
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.record import Cohort
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.preprocessing.geometry_steps import CropBox, PadSquare, ResizePlane
from glioflow.data.preprocessing.intensity_steps import Percentile, UnitScale, ZScore
from glioflow.data.targets import TargetSettings

BUDA = (Percentile(low=10, high=99), CropBox(above=0.1), PadSquare(), ResizePlane(size=256), ZScore())
QUICK = (UnitScale(), ResizePlane(size=128))
BATCH = 16


def prepare_as_the_port_does(cohort: Cohort) -> None:
    """The preprocessing of the PyTorch port with scikit-image, in memory: it writes nothing."""
    from skimage.exposure import rescale_intensity
    from skimage.io import imread
    from skimage.transform import resize

    for files in cohort.cases:
        images, masks = lgg.pair_slices(files.files)
        volume = np.stack([imread(images[number]) for number in sorted(images)])
        mask = np.stack([imread(masks[number]) for number in sorted(masks)])
        low, high = np.percentile(volume, (10, 99))
        volume = rescale_intensity(volume, in_range=(int(low), int(high)))
        inside = volume * (volume >= volume.max() * 0.1)
        rows, columns = np.flatnonzero(inside.any(axis=(0, 2, 3))), np.flatnonzero(inside.any(axis=(0, 1, 3)))
        box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        volume, mask = volume[box], mask[box]
        side = max(volume.shape[1:3])
        extra = [(side - n) // 2 for n in volume.shape[1:3]]
        margins = [(extra[k], side - n - extra[k]) for k, n in enumerate(volume.shape[1:3])]
        volume = np.pad(volume, [(0, 0), *margins, (0, 0)])
        mask = np.pad(mask, [(0, 0), *margins])
        size = (len(volume), 256, 256)
        volume = resize(volume, output_shape=(*size, 3), order=2, mode="constant", cval=0, anti_aliasing=False)
        mask = resize(mask, output_shape=size, order=0, mode="constant", cval=0, anti_aliasing=False)
        (volume - volume.mean(axis=(0, 1, 2))) / volume.std(axis=(0, 1, 2))


def time_preparing(cohort: Cohort, few: Cohort, repeats: int) -> None:
    home = Path(tempfile.mkdtemp())

    def into(name: str, map_cases: Callable[..., Iterable], cohort: Cohort = cohort, steps: tuple = QUICK) -> None:
        prepare(cohort, home / name, steps, map_cases=map_cases)
        shutil.rmtree(home / name)

    began = time.perf_counter()
    cluster.connect(num_cpus=2)
    list(cluster.map_parallel(warm_up, range(8)))
    print(f"Ray's start and first imports: {time.perf_counter() - began:.1f} s, not counted below")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:  # what two cores give without Ray
        list(pool.map(warm_up, range(8)))
        ways = {
            "plain loop, one process": lambda: into("loop", map),
            "Ray, 2 CPUs": lambda: into("ray", cluster.map_parallel),
            "two bare processes": lambda: into("pool", pool.map),
        }
        compare("prepare at 128", interleaved(ways, repeats), cohort)
    cluster.disconnect()
    ways = {
        "plain loop, one process": lambda: into("loop", map, few, BUDA),
        "as the port, scikit-image, in memory": lambda: prepare_as_the_port_does(few),
    }
    compare(f"prepare {len(few.cases)} patients as Buda at 256", interleaved(ways, 1), few)
    shutil.rmtree(home)


def compare(what: str, medians: dict[str, float], cohort: Cohort) -> None:
    slices = sum(len(case.files) // 2 for case in cohort.cases)
    base = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{what} | {name} | {seconds:.1f} s | {slices / seconds:.0f} slices/s | {base / seconds:.2f} x the loop")


def warm_up(number: int) -> int:
    """Import what preparing needs, in a worker."""
    import cv2
    import tifffile

    import glioflow.data.prepared.cohort

    time.sleep(0.3)
    return number + len(cv2.__name__ + tifffile.__name__ + glioflow.data.prepared.cohort.__name__)


def tiff_batches(cohort: Cohort, augmentation: str, workers: int) -> Iterator[object]:
    """A plain torch DataLoader that decodes and resizes each slice when it is asked for."""
    import cv2

    pairs = []
    for case in cohort.cases:
        images, masks = lgg.pair_slices(case.files)
        pairs += [(images[number], masks[number]) for number in sorted(images)]
    augment = light_for_slices() if augmentation == "light" else None

    class Slices(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(pairs)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = (lgg_pixels.read_tiff(path) for path in pairs[index])
            image = cv2.resize(image.astype(np.float32) / 255, (128, 128), interpolation=cv2.INTER_AREA)
            mask = (cv2.resize((mask > 0).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA) > 0.5).astype(
                "u1"
            )
            if augment is not None:
                varied = augment(image=image, mask=mask)
                image, mask = varied["image"], varied["mask"]
            return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask[None].astype(np.float32))

    yield from torch.utils.data.DataLoader(Slices(), batch_size=BATCH, shuffle=True, num_workers=workers)


def drain(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def time_loading(cohort: Cohort, prepared: PreparedCohort, repeats: int) -> None:
    cases = prepared.cases(record.id for record in prepared.records)
    for augmentation in ("none", "light"):
        settings = SamplingSettings(method="epoch", augmentation=augmentation)
        ours = SliceBatches(cases, TargetSettings(), settings, batch_size=BATCH, seed=0)
        steps = ours.steps_per_pass

        drain(ours.steps(0, 2))  # first imports are no one's speed
        ways = {
            "glioflow": lambda ours=ours, steps=steps: drain(ours.steps(0, steps)),
            "DataLoader, TIFF": lambda name=augmentation: drain(tiff_batches(cohort, name, 0)),
            "DataLoader, TIFF, 2 workers": lambda name=augmentation: drain(tiff_batches(cohort, name, 2)),
        }
        medians = interleaved(ways, repeats)
        base = medians["glioflow"]
        for name, seconds in medians.items():
            rate = prepared.num_slices / seconds
            print(
                f"load, augmentation {augmentation} | {name} | {rate:.0f} slices/s | glioflow is {seconds / base:.1f} x"
            )


def time_random_access(prepared: PreparedCohort) -> None:
    cases = prepared.cases(record.id for record in prepared.records)
    places = [(case, s) for case in cases for s in range(case.image.shape[0])]
    rng = np.random.default_rng(0)
    taken = []
    for place in rng.integers(len(places), size=5000):
        case, s = places[place]
        began = time.perf_counter()
        np.array(case.image[s], np.float32)
        taken.append((time.perf_counter() - began) * 1000)
    side = cases[0].image.shape[1]
    print(
        f"one slice of {side} x {side} x 3 | median {np.median(taken):.3f} ms | p99 {np.percentile(taken, 99):.3f} ms"
    )


def interleaved(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Run every way in turn, `repeats` times over; return the median seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - began)
    for name, seconds in taken.items():
        print(f"  {name}: {', '.join(f'{value:.2f}' for value in seconds)} s")
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, default=65)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--port-patients", type=int, default=5, help="scikit-image takes seconds a patient")
    parser.add_argument("--without-loading", action="store_true")
    arguments = parser.parse_args()
    whole = open_cohort(Path(os.environ["GLIOFLOW_DATA"]) / "kaggle_3m")
    cohort = Cohort(whole.format, whole.path, whole.cases[: arguments.patients], whole.labels)
    home = Path(tempfile.mkdtemp())
    few = Cohort(whole.format, whole.path, cohort.cases[: arguments.port_patients], whole.labels)
    small, large = prepare(cohort, home / "128", QUICK), prepare(few, home / "256", BUDA)
    print(f"{len(cohort.cases)} patients, {small.num_slices} slices, load average {os.getloadavg()[0]:.1f} on 2 cores")
    time_random_access(small)
    time_random_access(large)
    if not arguments.without_loading:
        time_loading(cohort, small, arguments.repeats)
    time_preparing(cohort, few, arguments.repeats)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
