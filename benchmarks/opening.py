"""Opening and checking a folder of many small DICOM cases, four series each; writes nothing but a temporary folder.

python benchmarks/opening.py [--cases 2000] [--slices 4] [--check]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

import glioflow as gf
from glioflow.data.formats.detect import open_cohort

SERIES = ("AX FLAIR", "AX T1", "AX T2", "AX T1 +C")
SIDE = 32


def write_case(root: Path, case: int, slices: int, rng: np.random.Generator) -> None:
    for number, description in enumerate(SERIES, start=1):
        folder = root / f"P{case:04}" / description.replace(" ", "_")
        folder.mkdir(parents=True)
        for index in range(slices):
            ds = Dataset()
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{case + 1}.{number}.{index + 1}"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.{case + 1}", f"1.2.{case + 1}.{number}"
            ds.FrameOfReferenceUID, ds.Modality, ds.PatientID = f"1.2.{case + 1}.9", "MR", f"P{case:04}"
            ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = description, number, index + 1
            ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * index]
            ds.PixelSpacing, ds.SliceThickness, ds.Rows, ds.Columns = [1, 1], 3, SIDE, SIDE
            ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
            ds.PixelData = rng.integers(1, 256, (SIDE, SIDE)).astype("<u2").tobytes()
            pydicom.dcmwrite(folder / f"IM{index:04}.dcm", ds, enforce_file_format=True)


def timed(what: str, work: Callable[[], Any]) -> None:
    began, cpu, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    work()
    wall, own = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what}: {wall:.1f} s, {own:.1f} s of CPU in this process, load average {load:.1f} before", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--check", action="store_true", help="read every case as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root, rng = Path(made), np.random.default_rng(0)
        for case in range(arguments.cases):
            write_case(root, case, arguments.slices, rng)
        print(f"{arguments.cases} cases, {arguments.cases * len(SERIES) * arguments.slices} files", flush=True)
        for _ in range(2):
            timed("open", lambda: open_cohort(root))
        timed("open, --skip-incomplete", lambda: open_cohort(root, skip_incomplete=True))
        if arguments.check:
            timed("data check", lambda: gf.check(root, say=lambda *_: None))


if __name__ == "__main__":
    main()
