"""Headers are read with bounds: a small file cannot make a reader take much memory or time, whatever it states."""

import gzip
import io
import struct
import time
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import tifffile
from dicom_series import write_series
from PIL import Image

from glioflow.data.formats import dicom_files
from glioflow.data.formats.nifti_header import read_header
from glioflow.data.formats.slices import read_image, read_stack
from glioflow.data.formats.study import read_study
from glioflow.data.formats.tiff import read_layout
from glioflow.data.formats.volume_files import read_volume
from glioflow.errors import TooLarge, UserError

GRAY = np.random.default_rng(0).integers(0, 4000, (5, 20, 30)).astype(np.uint16)


def cheap(function, path):
    """Return the error that a function raises, once it took little memory and time over it."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(UserError) as caught:
            function(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 60, "all of it was read"
    return str(caught.value)


def tags(*entries, following=0):
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def test_a_tiff_of_millions_of_strips_is_refused(tmp_path):
    strips = 5_000_000
    head = tags((256, 4, 1, 64), (257, 4, 1, 64), (273, 4, strips, 200), (279, 4, strips, 200))
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + head + bytes(4 * strips))
    assert "strips" in cheap(read_layout, path)
    assert "strips" in cheap(read_image, path)


@pytest.mark.parametrize("circle", [False, True])
def test_a_tiff_of_a_million_images_or_a_circle_of_them_is_refused(tmp_path, circle):
    size = len(tags((256, 4, 1, 64), (257, 4, 1, 64)))
    count = 1_000_000 if not circle else 3
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 8))
        for k in range(count):
            following = 8 + (k + 1) * size if k < count - 1 else 8
            file.write(tags((256, 4, 1, 64), (257, 4, 1, 64), following=following))
    assert ("circle" if circle else "at most 2000 images") in cheap(read_layout, path)


@pytest.mark.parametrize("tag", [270, 34665])
def test_a_tag_that_states_gigabytes_is_refused(tmp_path, tag):
    path = tmp_path / "a.tif"
    entry = (tag, 4, 1, 60) if tag == 34665 else (tag, 2, 2**31, 200)
    inner = tags((37500, 7, 2**31, 8))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + tags((256, 4, 1, 8), (257, 4, 1, 8), entry).ljust(52) + inner)
    assert "tags" in cheap(read_layout, path)


def test_a_nifti_extension_that_states_gigabytes_is_refused(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    packed = bytearray(image.to_bytes())
    packed[348:352] = b"\1\0\0\0"
    packed[352:360] = struct.pack("<ii", 1_400_000_000, 6)
    struct.pack_into("<f", packed, 108, 368)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(packed[:360]) + bytes(200_000_000), compresslevel=1))
    for function in (read_header, read_volume):
        assert "extensions" in cheap(function, path)


@pytest.mark.parametrize("hostile", [b"\x1f\x8b\x08\x08" + bytes(6) + b"A" * 3_000_000, gzip.compress(b"") * 70_000])
def test_a_packed_file_of_endless_headers_is_refused(tmp_path, hostile):
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    path, pieces = tmp_path / "a.nii.gz", gzip.compress(volume[:200]) + gzip.compress(volume[200:])
    path.write_bytes(pieces)
    assert read_volume(path).data.shape == (4, 4, 4)
    path.write_bytes(hostile + pieces)
    assert "more headers than voxels need" in cheap(read_volume, path)


def test_a_nifti_with_a_true_extension_is_read(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made by a scanner"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").data.shape == (4, 4, 4)


def test_a_png_of_an_enormous_size_is_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(TooLarge, match="4096 pixels"):
        read_image(tmp_path / "a.png")


def test_a_png_with_a_second_larger_header_is_refused(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def header(side):
        return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))

    pixels = zlib.compress(bytes(9_001 * 9_000))
    content = header(8) + header(9_000) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert "two headers" in cheap(read_image, tmp_path / "a.png")


@pytest.mark.parametrize("second", [(256, 4, 1, 8), (32997, 4, 1, 4000)], ids=["width", "depth"])
def test_a_tiff_that_states_two_sizes_is_refused(tmp_path, second):
    pixels = zlib.compress(bytes(4000 * 4000))
    entries = [(256, 4, 1, 4000), second, (257, 4, 1, 4000), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8 + len(tags(*entries)) + 48), (277, 3, 1, 1), (278, 4, 1, 4000), (279, 4, 1, len(pixels))]
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + tags(*entries) + pixels)
    assert "state the size of an image once" in cheap(read_image, path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", ["gray8", "gray16", "rgb8"])
def test_packed_tiffs_of_8_and_16_bits_are_read(tmp_path, compression, kind):
    rgb = np.random.default_rng(1).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    pixels = {"gray8": rgb[..., 0], "gray16": GRAY[0], "rgb8": rgb}[kind]
    Image.fromarray(pixels).save(tmp_path / "a_1.tif", compression=compression)
    np.testing.assert_array_equal(read_study([tmp_path / "a_1.tif"]).image[0].squeeze(), pixels)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"imagej": True}])
def test_a_stack_of_images_in_one_tiff_is_a_study(tmp_path, options):
    tifffile.imwrite(tmp_path / "scan.tif", GRAY, photometric="minisblack", **options)
    case = read_study([tmp_path / "scan.tif"])
    assert case.slice_numbers == (1, 2, 3, 4, 5)
    np.testing.assert_array_equal(case.image[..., 0], GRAY)


def test_a_stack_packed_by_lzw_is_read_image_by_image(tmp_path):
    first, *others = [Image.fromarray(plane) for plane in GRAY]
    first.save(tmp_path / "scan.tif", save_all=True, append_images=others, compression="tiff_lzw")
    np.testing.assert_array_equal(np.stack(read_stack(tmp_path / "scan.tif"))[..., 0], GRAY)


def test_a_stack_beside_other_slices_or_of_several_sizes_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "scan_1.tif", GRAY, photometric="minisblack")
    tifffile.imwrite(tmp_path / "scan_2.tif", GRAY[0], photometric="minisblack")
    with pytest.raises(UserError, match="must hold one image"):
        read_study([tmp_path / "scan_1.tif", tmp_path / "scan_2.tif"])
    with tifffile.TiffWriter(tmp_path / "odd.tif") as writer:
        writer.write(GRAY[0], photometric="minisblack")
        writer.write(GRAY[0, :5], photometric="minisblack")
    with pytest.raises(UserError, match="same size"):
        read_study([tmp_path / "odd.tif"])


def test_a_nifti_is_read_by_its_bytes_and_not_by_its_name(tmp_path):
    image = nibabel.Nifti1Image(np.transpose(GRAY, (2, 1, 0)).astype(np.int16), np.diag([1.0, 1, 3, 1]))
    (tmp_path / "a_flair.nii.gz").write_bytes(image.to_bytes())
    (tmp_path / "b_flair.nii").write_bytes(gzip.compress(image.to_bytes()))
    nibabel.save(image, tmp_path / "c_flair.nii")
    whole = read_study([tmp_path / "c_flair.nii"])
    for name in ("a_flair.nii.gz", "b_flair.nii"):
        np.testing.assert_array_equal(read_study([tmp_path / name]).image, whole.image)


def test_a_nifti_of_two_axes_is_one_slice(tmp_path):
    nibabel.save(nibabel.Nifti1Image(GRAY[0].T.astype(np.int16), np.diag([1.0, 1, 3, 1])), tmp_path / "a_flair.nii")
    assert read_study([tmp_path / "a_flair.nii"]).shape == (1, 20, 30)


def test_a_tiff_without_pixels_is_damaged_and_not_too_large(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + tags((256, 4, 1, 0), (257, 4, 1, 64)))
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_layout(path)
    assert not isinstance(caught.value, TooLarge)


def test_a_packed_volume_with_a_wrong_checksum_or_much_behind_its_voxels_is_refused(tmp_path):
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    path, packed = tmp_path / "a.nii.gz", gzip.compress(volume)
    path.write_bytes(packed)
    assert read_volume(path).data.shape == (4, 4, 4)
    path.write_bytes(packed[:-8] + b"\1\2\3\4" + packed[-4:])
    assert "CRC" in cheap(read_volume, path)
    path.write_bytes(gzip.compress(volume + bytes(200_000_000), 1))
    assert "end where its voxels do" in cheap(read_volume, path)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_volume_whose_scale_is_infinite_is_refused(tmp_path, value):
    head = bytearray(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    head[112:116] = struct.pack("<f", value)
    path = tmp_path / "a.nii"
    path.write_bytes(head)
    with pytest.raises(UserError, match="scale"):
        read_volume(path)


def sequence(items, *, states_length, tag=(0x0008, 0x9215)):
    content = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * items
    end = b"" if states_length else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    size = len(content) if states_length else 0xFFFFFFFF
    return struct.pack("<HH2sHI", *tag, b"SQ", 0, size) + content + end


def empty_elements(count):
    return b"".join(struct.pack("<HH2sH", 0x0009, 0x1000 + k, b"LO", 0) for k in range(count))


def slices_with(folder, hostile, count=1):
    """Write DICOM slices with bytes before the name of the patient in their headers; return their files."""
    write_series(folder, np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8))
    for path in folder.iterdir():
        content = path.read_bytes()
        at = content.index(b"\x10\x00\x10\x00PN")
        path.write_bytes(content[:at] + hostile + content[at:])
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "hostile",
    [sequence(200_000, states_length=False), sequence(0, states_length=False) * 50_000, empty_elements(50_000)],
    ids=["items", "sequences", "elements"],
)
def test_a_dicom_header_of_many_elements_is_refused_before_they_fill_the_memory(tmp_path, monkeypatch, hostile):
    monkeypatch.setattr(dicom_files, "_MOST_READS", 40_000)
    (path,) = slices_with(tmp_path / "series", hostile)
    assert "more than that of an image can; got more than 40000 steps" in cheap(lambda file: read_study([file]), path)


def test_the_headers_of_all_files_of_a_study_share_one_limit(tmp_path, monkeypatch):
    files = slices_with(tmp_path / "series", empty_elements(1000), count=3)
    assert read_study(files).shape == (3, 8, 8)
    monkeypatch.setattr(dicom_files, "_MOST_READS", 3000)
    for file in files:
        assert read_study([file]).shape == (1, 8, 8)
    with pytest.raises(UserError, match="more than that of an image can"):
        read_study(files)


@pytest.mark.parametrize("nested", [False, True])
def test_sequences_of_stated_length_are_refused_before_they_become_items(tmp_path, nested):
    inner = sequence(1_100_000, states_length=True, tag=(0x5200, 0x9229))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    outer = struct.pack("<HH2sHI", 0x0008, 0x9215, b"SQ", 0, 0xFFFFFFFF) + item
    (path,) = slices_with(tmp_path / "series", outer if nested else inner)
    with pytest.raises(UserError, match="more than that of an image can; got sequences of 8800000 bytes"):
        read_study([path])
