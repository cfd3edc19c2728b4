"""Masks as DICOM segmentation objects, which refer to the series that was segmented."""

import io
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from glioflow.data.case import Case
from glioflow.data.formats.dicom_files import first_series, is_dicom, load_series
from glioflow.data.formats.dicom_masks import LPS_TO_RAS
from glioflow.errors import UserError


def encode_dicom_seg(mask: NDArray[np.uint8], case: Case, labels: dict[int, str]) -> bytes:
    """Return a mask as a DICOM segmentation object that refers to the first series of the case.

    Raises:
        UserError: If the case was not read from DICOM.
    """
    if case.grid.affine is None or not case.files or not all(is_dicom(file) for file in case.files):
        raise UserError("the format dicom-seg needs a study read from DICOM", case.id, ["tiff", "nifti"])
    sources = load_series(first_series(case.files))
    numbered = np.zeros_like(mask)
    for number, label in enumerate(labels, start=1):
        numbered[mask == label] = number
    segmentation: Any = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=highdicom.Volume(
            np.ascontiguousarray(case.grid.to_file(numbered), np.uint8),
            LPS_TO_RAS @ case.grid.affine,
            "PATIENT",
            frame_of_reference_uid=sources[0].FrameOfReferenceUID,
        ),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, name) for number, name in enumerate(labels.values(), start=1)],
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="GlioFlow",
        manufacturer_model_name="GlioFlow",
        software_versions="1",
        device_serial_number="0",
        omit_empty_frames=bool(mask.any()),
    )
    buffer = io.BytesIO()
    segmentation.save_as(buffer)
    return buffer.getvalue()


def _segment(number: int, name: str) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="GlioFlow", version="1", family=codes.DCM.ArtificialIntelligence
        ),
    )
