"""Compressed DICOM: read to the same voxels where it can be, refused by the name of its transfer syntax where not."""

import io
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from glioflow.data.formats.dicom_pixels import _size_of
from glioflow.data.formats.study import read_study
from glioflow.data.formats.writing import write_mask
from glioflow.errors import UserError
from glioflow.serving.http.uploads import read_uploads
from glioflow.serving.settings import Limits

VOXELS = np.random.default_rng(0).integers(0, 4000, (5, 40, 36))


@pytest.fixture
def series(tmp_path):
    """A folder of uncompressed slices, and what they read as."""
    folder = write_series(tmp_path / "series", VOXELS, slope=2.0)
    return folder, read_study([folder])


def recode(folder, encode):
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        encode(ds)
        ds.save_as(path, enforce_file_format=True)


def as_jpeg_2000(ds):
    stream = io.BytesIO()
    Image.fromarray(ds.pixel_array.astype(np.uint16)).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
    claim(ds, JPEG2000Lossless, stream.getvalue())


def claim(ds, syntax, stream):
    """Put a stream of whatever kind into the data set under the name of `syntax`."""
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax


ENCODERS = {
    "rle": lambda ds: ds.compress(RLELossless),
    "jpeg-ls": lambda ds: ds.compress(JPEGLSLossless),
    "jpeg-2000": as_jpeg_2000,
}


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_losslessly_compressed_slices_read_as_the_same_voxels(series, encode):
    folder, plain = series
    recode(folder, encode)
    packed = read_study([folder])
    assert np.array_equal(packed.image, plain.image)
    assert packed.spacing_mm == plain.spacing_mm


@pytest.mark.parametrize(
    ("syntax", "name", "needed"),
    [
        (JPEGLosslessSV1, "JPEG Lossless", "pylibjpeg-libjpeg"),
        (JPEGExtended12Bit, "JPEG Extended", "gdcmconv --raw"),
        (HTJ2K, "High-Throughput JPEG 2000", "pylibjpeg-openjpeg"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4", "gdcmconv --raw"),
        ("1.2.3.4.5", "1.2.3.4.5", "gdcmconv --raw"),
    ],
)
def test_what_cannot_be_decoded_here_is_refused_by_its_name_with_what_can(series, syntax, name, needed):
    folder, _ = series
    recode(folder, lambda ds: claim(ds, pydicom.uid.UID(syntax), b"\xff\xd8\xff\xd9"))
    with pytest.raises(UserError, match="this transfer syntax cannot be decoded") as caught:
        read_study([folder])
    assert name in caught.value.value
    assert str(syntax) in caught.value.value
    assert needed in caught.value.hint


@pytest.mark.parametrize("kind", ["jpeg-ls", "jpeg-2000"])
def test_a_stream_of_another_size_than_its_header_says_is_refused_undecoded(series, kind):
    folder, _ = series

    def lie(ds):
        ENCODERS[kind](ds)
        ds.Rows = ds.Columns = 16

    recode(folder, lie)
    with pytest.raises(UserError, match=r"size in their header; got .*\(36, 40\), not \(16, 16\)"):
        read_study([folder])


def test_run_lengths_that_unpack_to_gigabytes_are_refused_undecoded(series):
    folder, _ = series
    header = np.zeros(16, "<u4")
    header[:3] = 2, 64, 66
    bomb = header.tobytes() + b"\x81\x00" * (5 << 20)
    recode(folder, lambda ds: claim(ds, RLELossless, bomb))
    with pytest.raises(UserError, match="run-length encoded frame must have at most"):
        read_study([folder])


def test_a_stream_that_the_offsets_of_a_header_lead_to_is_checked_too(series):
    folder, _ = series

    def hide(ds):
        as_jpeg_2000(ds)
        own, other = ds.PixelData, io.BytesIO()
        Image.fromarray(np.zeros((400, 400), np.uint16)).save(other, "JPEG2000", no_jp2=True, irreversible=False)
        claim(ds, JPEG2000Lossless, other.getvalue())
        table = 8
        start, hidden = len(own) - table, ds.PixelData[table:]
        ds.PixelData = own + hidden
        ds.ExtendedOffsetTable = start.to_bytes(8, "little")
        ds.ExtendedOffsetTableLengths = (len(hidden) - 8).to_bytes(8, "little")

    recode(folder, hide)
    with pytest.raises(UserError, match=r"size in their header; got .*\(400, 400\), not \(36, 40\)"):
        read_study([folder])


def test_pixels_in_a_hundred_thousand_pieces_are_refused_undecoded(series):
    folder, _ = series

    def split(ds):
        as_jpeg_2000(ds)
        ds.PixelData += b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000

    recode(folder, split)
    with pytest.raises(UserError, match="at most 65536 fragments"):
        read_study([folder])


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("seed", range(8))
def test_damaged_streams_are_the_users_mistake_or_still_read(series, kind, seed):
    folder, plain = series
    rng = np.random.default_rng(seed)
    recode(folder, ENCODERS[kind])
    path = sorted(folder.iterdir())[0]
    content = bytearray(path.read_bytes())
    for index in rng.integers(len(content) // 2, len(content), 6):
        content[index] = rng.integers(256)
    path.write_bytes(content)
    try:
        assert read_study([folder]).shape == plain.shape
    except UserError:
        pass


def test_a_multiframe_file_may_be_compressed(series, tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedMRImage

    folder, plain = series
    singles = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: ds.InstanceNumber)
    enhanced = LegacyConvertedEnhancedMRImage(singles, generate_uid(), 1, generate_uid(), 1)
    enhanced.compress(RLELossless)
    (tmp_path / "multi").mkdir()
    enhanced.save_as(tmp_path / "multi" / "one.dcm")
    assert np.array_equal(read_study([tmp_path / "multi"]).image, plain.image)


def test_a_segmentation_that_cannot_be_decoded_is_refused_by_its_name(series):
    folder, plain = series
    mask = np.zeros(plain.shape, np.uint8)
    mask[1:3, 2:9, 1:7] = 1
    path = write_mask(mask, plain, folder, "dicom-seg")
    assert np.array_equal(read_study([folder]).mask, mask)
    ds = pydicom.dcmread(path)
    claim(ds, JPEGLosslessSV1, b"\xff\xd8\xff\xd9")
    ds.save_as(path, enforce_file_format=True)
    with pytest.raises(UserError, match="JPEG Lossless"):
        read_study([folder])


def test_a_zip_of_two_series_whose_files_are_named_alike_is_one_study(tmp_path):
    for number, description in enumerate(("AX T1 SE", "AX FLAIR"), start=1):
        write_series(tmp_path / f"s{number}", VOXELS + number, description=description, number=number)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(tmp_path.glob("s?/*")):
            archive.write(path, path.relative_to(tmp_path))
    (tmp_path / "study").mkdir()
    case = read_uploads([("study.zip", packed)], tmp_path / "study", Limits())
    assert case.channels == ("pre", "flair")
    assert np.array_equal(case.image[..., 1] - case.image[..., 0], np.ones(VOXELS.shape))


@pytest.mark.parametrize("shape", [(40, 36), (7, 300), (513, 20)])
@pytest.mark.parametrize(
    "extra", [b"", b"\xff\xfe\x00\x05abc", b"\xff\xff\xff\xe8\x00\x04\xff\xf7"], ids=["", "comment", "fill"]
)
def test_the_size_in_a_jpeg_ls_stream_is_the_one_that_its_decoder_reads(shape, extra):
    import jpeg_ls

    encoded = bytes(jpeg_ls.encode(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)))
    stream = encoded[:2] + extra + encoded[2:]
    assert jpeg_ls.decode(np.frombuffer(stream, np.uint8)).shape[:2] == shape
    assert _size_of(stream, str(JPEGLSLossless)) == shape[::-1]


@pytest.mark.parametrize("kept", [0, 2, 3, 5])
def test_a_jpeg_ls_stream_that_ends_before_its_size_has_none(kept):
    import jpeg_ls

    stream = bytes(jpeg_ls.encode(np.zeros((4, 4), np.uint8)))[:kept]
    with pytest.raises((ValueError, IndexError)):
        _size_of(stream, str(JPEGLSLossless))
