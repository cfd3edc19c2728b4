"""`glioflow auto` beside nnU-Net, MONAI's loop and the loop of Buda's port: the same patients, the same wall time.

Run: GLIOFLOW_DATA=FOLDER python benchmarks/peers.py ROWS.csv --minutes 20 [--nnunet BIN] PEER...

FOLDER holds kaggle_3m and lgg_split_65.json. Each peer gets the 52 train and val patients of the split and M minutes of
wall time from its first command to its trained model: its imports, preparation and training. Then it predicts the 13
test patients, which are scored by their whole volumes in the original geometry. The loops and nnU-Net train on the 45
train patients and choose by the 7 val patients; `auto` deals the 52 as it likes. None has pretrained weights unless the
peer downloads them: here none can be downloaded. Rows are added to ROWS.csv as each run ends, and a run that is there
is not repeated.

Peers: `auto`; `buda` and `monai` (peer_loops.py); `nnunet` (its default 2D plan) and `nnunet-cut` (its 2D plan with
patches of 128 x 128 at twice the spacing, 16 a batch, and half the width), by its own commands in BIN, with a trainer
that stops at the deadline (nnunet_trainer/). nnU-Net is installed in an environment of its own.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from machine import first_lines
from numpy.typing import NDArray

from glioflow.data.formats.detect import open_cohort
from glioflow.evaluation import dice_per_case

HERE = Path(__file__).parent
Volume = NDArray[np.uint8]
SPACING = np.diag([1.0, 1.0, 5.0, 1.0])  # x, y, z in mm; the files state none, and the 2D plans use none along z


@dataclass(frozen=True)
class Patients:
    """Images (S, H, W, 3) and masks (S, H, W) of the 65 patients, and who is in which part."""

    folder: Path
    parts: Mapping[str, list[str]]
    images: Mapping[str, Volume]
    masks: Mapping[str, Volume]


@dataclass(frozen=True)
class Trained:
    """What a peer came to: its masks of the test patients, the seconds until its model, and a remark."""

    masks: Mapping[str, Volume]
    seconds: float
    remark: str


def read_patients(data: Path) -> Patients:
    """Return all patients of the split."""
    parts = json.loads((data / "lgg_split_65.json").read_text())
    cohort = open_cohort(data / "kaggle_3m")
    cases = {each.id: cohort.reader(each) for each in cohort.cases}
    masks = {name: case.mask for name, case in cases.items() if case.mask is not None}
    return Patients(data / "kaggle_3m", parts, {name: case.image for name, case in cases.items()}, masks)


def run_auto(patients: Patients, work: Path, minutes: float) -> Trained:
    """Give the 52 patients to `glioflow auto`."""
    (work / "lgg").mkdir()
    for case in (*patients.parts["train"], *patients.parts["val"]):
        (work / "lgg" / case).symlink_to(patients.folder / case)
    environment = {**os.environ, "GLIOFLOW_HOME": str(work / "home")}
    words = ["auto", str(work / "lgg"), "--hours", str(minutes / 60), "--name", "peer", "--json"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "glioflow", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, result = time.perf_counter() - began, json.loads(done.stdout.splitlines()[-1])
    os.environ["GLIOFLOW_HOME"] = environment["GLIOFLOW_HOME"]
    import glioflow as gf

    model = gf.load(f"peer/{result['version']}")
    masks = {case: model.predict(patients.folder / case).mask.astype(np.uint8) for case in patients.parts["test"]}
    remark = (
        f"promised by cross-validation {result['dice_mean']:.3f} [{', '.join(f'{x:.3f}' for x in result['dice_ci95'])}]"
    )
    return Trained(masks, seconds, remark)


def run_loop(name: str, patients: Patients, work: Path, minutes: float) -> Trained:
    """Run one of the loops in a process of its own."""
    arrays = {}
    for part, cases in patients.parts.items():
        for case in cases:
            arrays[f"{part}/{case}/image"] = patients.images[case]
            if part != "test":
                arrays[f"{part}/{case}/mask"] = patients.masks[case]
    np.savez(work / "data.npz", **arrays)
    words = [
        str(HERE / "peer_loops.py"),
        name,
        str(work / "data.npz"),
        str(work / "masks.npz"),
        "--minutes",
        str(minutes),
    ]
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout)
    facts = dict(line.split() for line in done.stdout.splitlines() if line.startswith("PEER_"))
    with np.load(work / "masks.npz") as masks:
        return Trained(dict(masks), float(facts["PEER_SECONDS"]), f"{facts['PEER_STEPS']} steps")


def write_raw(patients: Patients, raw: Path, test: Path) -> None:
    """Write the patients as nnU-Net's raw data set 501, and the test patients' images into a folder of their own."""
    folders = {"images": raw / "imagesTr", "labels": raw / "labelsTr", "test": test}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for part, cases in patients.parts.items():
        for case in cases:
            for channel in range(3):
                image = nibabel.Nifti1Image(patients.images[case][..., channel].T.astype(np.float32), SPACING)
                nibabel.save(image, folders["test" if part == "test" else "images"] / f"{case}_{channel:04d}.nii.gz")
            if part != "test":
                mask = nibabel.Nifti1Image((patients.masks[case] > 0).T.astype(np.uint8), SPACING)
                nibabel.save(mask, folders["labels"] / f"{case}.nii.gz")
    described = {
        "channel_names": {"0": "pre", "1": "FLAIR", "2": "post"},
        "labels": {"background": 0, "tumor": 1},
        "numTraining": len(patients.parts["train"]) + len(patients.parts["val"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))


def cut(plans: Path) -> None:
    """Write a second plan whose patch, batch and width two cores carry."""
    plan = json.loads(plans.read_text())
    plan["plans_name"] = "nnUNetPlansCut"
    small = plan["configurations"]["2d"]
    small.update(data_identifier="nnUNetPlansCut_2d", patch_size=[128, 128], batch_size=16)
    small["spacing"] = [2 * each for each in small["spacing"]]
    network = small["architecture"]["arch_kwargs"]
    stages = 6  # down to 4 x 4
    for name, value in network.items():
        if isinstance(value, list) and len(value) == network["n_stages"]:
            network[name] = value[:stages]
        elif isinstance(value, list) and len(value) == network["n_stages"] - 1:
            network[name] = value[: stages - 1]
    network["n_stages"] = stages
    network["features_per_stage"] = [each // 2 for each in network["features_per_stage"]]
    plans.with_name("nnUNetPlansCut.json").write_text(json.dumps(plan))


def run_nnunet(is_cut: bool, bin_: Path, patients: Patients, work: Path, minutes: float) -> Trained:
    """Run nnU-Net's commands."""
    raw, prepared = work / "raw" / "Dataset501_LGG", work / "prepared" / "Dataset501_LGG"
    write_raw(patients, raw, work / "test")
    began = time.time()
    environment = {
        **os.environ,
        "nnUNet_raw": str(raw.parent),
        "nnUNet_preprocessed": str(prepared.parent),
        "nnUNet_results": str(work / "results"),
        "nnUNet_extTrainer": str(HERE / "nnunet_trainer"),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": "1",
        "PEER_DEADLINE": str(began + 60 * minutes),
    }
    plan = "nnUNetPlansCut" if is_cut else "nnUNetPlans"

    def run(command: str, *words: str) -> str:
        full = [str(bin_ / f"nnUNetv2_{command}"), *words]
        return subprocess.run(full, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    run("plan_and_preprocess", "-d", "501", "-c", "2d", "-npfp", "2", "-np", "2", *(["--no_pp"] if is_cut else []))
    if is_cut:
        cut(prepared / "nnUNetPlans.json")
        run("preprocess", "-d", "501", "-plans_name", plan, "-c", "2d", "-np", "2")
    split = [{"train": patients.parts["train"], "val": patients.parts["val"]}]
    (prepared / "splits_final.json").write_text(json.dumps(split))
    chosen = ("-tr", "TrainerUntilDeadline", "-p", plan)
    trained = run("train", "501", "2d", "0", *chosen, "-device", "cpu")
    seconds = time.time() - began
    where = ("-i", str(work / "test"), "-o", str(work / "masks"), "-d", "501", "-c", "2d", "-f", "0")
    run("predict", *where, *chosen, "-device", "cpu", "-npp", "1", "-nps", "1")
    masks = {}
    for case in patients.parts["test"]:
        image = nibabel.load(work / "masks" / f"{case}.nii.gz")
        masks[case] = np.asarray(image.dataobj).T.astype(np.uint8)
    steps = next(line.split()[1] for line in reversed(trained.splitlines()) if line.startswith("PEER_STEPS"))
    return Trained(masks, seconds, f"{steps} steps")


def main() -> None:
    """Run the named peers one after the other; add each one's rows as it ends, and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("peers", nargs="+", choices=["auto", "buda", "monai", "nnunet", "nnunet-cut"])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--nnunet", type=Path, help="folder of nnU-Net's commands")
    given = parser.parse_args()
    patients, load = read_patients(Path(os.environ["GLIOFLOW_DATA"])), os.getloadavg()[0]
    kinds: dict[str, Callable[[Path], Trained]] = {
        "auto": lambda work: run_auto(patients, work, given.minutes),
        **{name: lambda work, name=name: run_loop(name, patients, work, given.minutes) for name in ("buda", "monai")},
        "nnunet": lambda work: run_nnunet(False, given.nnunet, patients, work, given.minutes),
        "nnunet-cut": lambda work: run_nnunet(True, given.nnunet, patients, work, given.minutes),
    }
    done = list(csv.DictReader(given.rows.open())) if given.rows.exists() else []
    for peer in given.peers:
        if any(row["peer"] == peer and float(row["minutes"]) == given.minutes for row in done):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            trained = kinds[peer](Path(work))
        rows = [
            {
                "peer": peer,
                "minutes": given.minutes,
                "seconds": round(trained.seconds),
                "case": case,
                "dice": round(dice_per_case(mask > 0, patients.masks[case] > 0), 4),
                "remark": trained.remark,
            }
            for case, mask in trained.masks.items()
        ]
        with given.rows.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)
        scores = [float(row["dice"]) for row in rows]
        head = first_lines(f"{peer}, {given.minutes:g} minutes", (time.perf_counter() - began) / 60, load)
        print(
            "\n".join([*head, f"mean {np.mean(scores):.3f}, median {np.median(scores):.3f}; {trained.remark}"]),
            flush=True,
        )


if __name__ == "__main__":
    main()
