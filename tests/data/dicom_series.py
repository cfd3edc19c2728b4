"""Small DICOM series for tests, written with pydicom alone."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = (1.0, 0, 0, 0, 1, 0)
CORONAL = (1.0, 0, 0, 0, 0, -1)


def write_series(
    folder: Path,
    volume,
    *,
    description="AX FLAIR",
    orientation=AXIAL,
    step=(0, 0, 3.0),
    origin=(-10.0, -20, 30),
    slope=1.0,
    intercept=0.0,
    study="1.2.3",
    number=1,
    patient="TCGA-CS-4941",
):
    """Write (n, rows, columns) uint16 as one file per slice, in an order of names that is not that of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = generate_uid(entropy_srcs=[description]), generate_uid(entropy_srcs=[study])
    names = np.random.default_rng(0).permutation(len(volume))
    for index, plane in enumerate(volume):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid(
            entropy_srcs=[description, str(index), study]
        )
        ds.Modality, ds.PatientID, ds.PatientName = "MR", patient, "A^B"
        ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = "20000101", "000000", ""
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = description, number, index + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
        ds.Manufacturer = "test"
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [float(o + index * s) for o, s in zip(origin, step, strict=True)]
        ds.PixelSpacing, ds.SliceThickness = [0.5, 0.75], 3.0
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        ds.PixelData = np.ascontiguousarray(plane, "<u2").tobytes()
        pydicom.dcmwrite(folder / f"IM{names[index]:04}", ds, enforce_file_format=True)
    return folder
