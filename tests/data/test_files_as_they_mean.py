"""What a file says about its pixels and its grid is heeded or refused, never passed over."""

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_series import write_series
from PIL import Image
from test_volume_cohorts import read_first, save

from glioflow.api.analysis import measure_features
from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.formats.slices import read_image
from glioflow.data.formats.study import read_study
from glioflow.data.formats.volume_files import read_labels, read_volume
from glioflow.data.preprocessing.geometry import resample
from glioflow.errors import UserError
from glioflow.features import measure_mask

GRAY = np.arange(64, dtype=np.uint8).reshape(8, 8)
SHAPE = (4, 5, 6)


@pytest.mark.parametrize("kind", ["miniswhite", "palette", "separated"])
def test_a_tiff_with_another_meaning_of_its_values_is_refused(tmp_path, kind):
    path = tmp_path / "slice_1.tif"
    if kind == "palette":
        tifffile.imwrite(path, GRAY, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    elif kind == "separated":
        tifffile.imwrite(path, np.zeros((8, 8, 4), np.uint8), photometric="separated")
    else:
        tifffile.imwrite(path, GRAY, photometric=kind)
    with pytest.raises(UserError, match="must be gray"):
        read_image(path)


def test_a_palette_png_is_read_by_its_colors_and_a_gray_one_loses_its_opacity(tmp_path):
    image = Image.fromarray(GRAY).convert("P")
    image.putpalette([255 - value // 3 for value in range(768)])
    image.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[0, 1].tolist() == [254]
    Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(GRAY)]).save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png")[..., 0], GRAY)


@pytest.mark.parametrize(
    ("tag", "value", "shown"),
    [
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME1"),
        ("PhotometricInterpretation", "PALETTE COLOR", "PALETTE COLOR"),
        ("PresentationLUTShape", "INVERSE", "MONOCHROME2, shown inverse"),
    ],
)
def test_dicom_with_dark_for_bright_is_refused(tmp_path, tag, value, shown):
    folder = write_series(tmp_path, np.full((3, 6, 8), 7, np.uint16))
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        setattr(data, tag, value)
        data.save_as(path)
    with pytest.raises(UserError, match=f"MONOCHROME2; got {shown};"):
        read_study([folder])


@pytest.mark.parametrize(
    ("axis", "jitter", "accepted"), [(0, 0.029, True), (1, 0.029, True), (2, 0.029, True), (2, 0.5, False)]
)
def test_slices_may_jitter_by_less_than_a_hundredth_of_their_distance(tmp_path, axis, jitter, accepted):
    folder = write_series(tmp_path, np.full((5, 6, 8), 7, np.uint16))
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[axis] += jitter * (-1) ** data.InstanceNumber * (data.InstanceNumber in (1, 2, 5))
        data.save_as(path)
    if accepted:
        assert read_study([folder]).spacing_mm[0] == pytest.approx(3, abs=0.02)
    else:
        with pytest.raises(UserError, match="evenly spaced"):
            read_study([folder])


def shifted(mm):
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, 3] = [3000, -2000, 100]
    affine[0, 3] += mm
    return affine


def test_grids_are_compared_by_their_corners(tmp_path):
    one = save(tmp_path / "one" / "flair.nii", np.ones(SHAPE, np.int16), shifted(0))
    for mm, same in ((0.05, True), (2.9, False)):
        save(tmp_path / "one" / "t1.nii", np.ones(SHAPE, np.int16), shifted(mm))
        if same:
            assert read_first(tmp_path)[1].channels == ("flair", "t1")
        else:
            with pytest.raises(UserError, match="one grid"):
                read_first(tmp_path)
    turned = shifted(0) @ np.array([[1, 0.004, 0, 0], [-0.004, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for path in (one, tmp_path / "one" / "t1.nii"):
        save(path, np.ones((200, 200, 6), np.int16), shifted(0) if path == one else turned)
    with pytest.raises(UserError, match="one grid"):
        read_first(tmp_path)


def test_the_volume_of_a_sheared_voxel_is_its_determinant(tmp_path):
    affine = np.diag([-1.0, -2, 3, 1])
    affine[1, 2] = 2.0  # slices slide toward the front
    volume = read_volume(save(tmp_path / "image.nii", np.ones(SHAPE, np.int16), affine))
    assert np.prod(volume.spacing_mm) == pytest.approx(6)
    features = measure_mask(np.ones((2, 2, 2), bool), spacing_mm=volume.spacing_mm).volume
    assert features["volume_mm3"] == pytest.approx(8 * 6)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_the_unit_of_a_header_is_heeded(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(np.ones(SHAPE, np.int16), np.diag([-2.0, -2, 2, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "image.nii")
    assert read_volume(tmp_path / "image.nii").spacing_mm == pytest.approx((2 * factor,) * 3)


@pytest.mark.parametrize("step", [2000.0, 0.002])
def test_a_spacing_that_no_scan_has_is_refused_and_named_by_check(tmp_path, step):
    affine = np.diag([-step, -step, step, 1])
    path = save(tmp_path / "one" / "flair.nii", np.random.default_rng(0).integers(0, 99, SHAPE, np.int16), affine)
    with pytest.raises(UserError, match=rf"between 0.05 and 30 mm; got {step:g} x .* check the unit"):
        read_first(tmp_path)
    (problem,) = [each for each in check(tmp_path).problems if each.severity == "error"]
    assert "spacing of a study must be between" in problem.rule
    with pytest.raises(UserError, match=r"between 0.05 and 30 mm"):
        measure_features(path)
    assert measure_features(path, spacing=(2, 1, 1)).features.volume["volume_mm3"]


def test_a_header_without_an_orientation_is_told(tmp_path):
    image = nibabel.Nifti1Image(np.ones(SHAPE, np.int16), None)
    image.header.set_zooms((1, 2, 3))
    (tmp_path / "one").mkdir()
    nibabel.save(image, tmp_path / "one" / "flair.nii")
    _, case = read_first(tmp_path)
    assert case.spacing_mm == (3, 2, 1)
    assert case.warnings == ("flair.nii states its spacing but no orientation: its axes are guessed",)


def test_check_tells_once_what_was_assumed_about_headers_with_codes_that_do_not_exist(tmp_path, capfd):
    for case in ("one", "two"):
        save(tmp_path / case / "flair.nii", np.random.default_rng(len(case)).integers(0, 99, SHAPE, np.int16))
        header = bytearray((tmp_path / case / "flair.nii").read_bytes())
        header[252:256] = bytes([0, 0, 99, 0])  # qform_code 0, sform_code 99
        (tmp_path / case / "flair.nii").write_bytes(header)
    (remark,) = check(tmp_path).remarks
    assert remark.endswith("no orientation: its axes are guessed (2 of 2 cases have such a remark)")
    assert capfd.readouterr().err == ""


def test_labels_stored_with_a_scale_factor_are_rounded_and_others_are_refused(tmp_path):
    save(tmp_path / "one" / "flair.nii", np.ones(SHAPE, np.int16))
    path = tmp_path / "one" / "seg.nii"
    save(path, np.full(SHAPE, 1.0000153, np.float32))
    assert read_first(tmp_path)[1].mask.all()
    assert read_mask(path)[0].all()
    save(path, np.full(SHAPE, 0.4, np.float32))
    with pytest.raises(UserError, match="whole"):
        read_first(tmp_path)
    save(path, np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(UserError, match="finite"):
        read_mask(path)


@pytest.mark.parametrize(
    ("values", "declared"),
    [((0, 255), "{255: tumor}"), ((0, 1, 7, 250), "{1: part1, 7: part2, 250: part3}")],
)
def test_the_advice_to_declare_labels_names_each_of_them(tmp_path, values, declared):
    path = save(tmp_path / "mask.nii.gz", np.resize(np.array(values, np.int16), (4, 5, 6)))
    with pytest.raises(UserError) as caught:
        read_labels(path, (1,))
    assert f"`labels: {declared}`" in str(caught.value)


@pytest.mark.parametrize("label", [-4, 1028])
def test_labels_that_no_cohort_can_declare_are_refused_without_the_advice_to_declare_them(tmp_path, label):
    path = save(tmp_path / "mask.nii.gz", np.resize(np.array([0, label], np.int16), (4, 5, 6)))
    with pytest.raises(UserError, match="must be among") as caught:
        read_labels(path, [1])
    assert caught.value.value == str(sorted([0, label]))
    assert caught.value.hint == "store it with labels from 0 to 255"


def test_a_disk_keeps_its_area_when_it_shrinks():
    rows, columns = np.indices((256, 256))
    disk = ((rows - 127.3) ** 2 + (columns - 128.1) ** 2 < 60**2).astype(np.uint8)[None]
    for side in (128, 64):
        small = resample(disk, (1, side, side))
        assert small.sum() * (256 / side) ** 2 == pytest.approx(disk.sum(), rel=0.003), side


def test_numbers_are_averaged_where_slices_become_fewer():
    stack = np.zeros((9, 2, 2), np.float32)
    stack[4] = 9
    assert resample(stack, (3, 2, 2))[:, 0, 0].tolist() == pytest.approx([0, 3, 0])
    stack = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    assert resample(stack, (3, 2, 2)).mean() == pytest.approx(stack.mean())


def test_a_palette_of_grays_is_a_gray_image(tmp_path):
    Image.fromarray(GRAY).convert("P").save(tmp_path / "gray.png")
    assert np.array_equal(read_image(tmp_path / "gray.png"), GRAY[..., None])


@pytest.mark.parametrize("kind", ["tiff_lzw", "associated"])
@pytest.mark.parametrize("opacity", [128, 255])
def test_colors_that_were_multiplied_by_an_opacity_are_refused(tmp_path, kind, opacity):
    colors, path = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, opacity)]), tmp_path / "a.tif"
    if kind == "associated":
        tifffile.imwrite(path, colors, photometric="rgb", extrasamples=["assocalpha"])
    else:
        Image.fromarray(colors).save(path, compression=kind)
    if opacity == 255:
        assert np.array_equal(read_image(path), colors[..., :3])
    else:
        with pytest.raises(UserError, match="must be opaque"):
            read_image(path)


def test_a_gray_png_of_16_bits_with_an_opacity_is_gray_of_16_bits(tmp_path):
    rows = np.dstack([GRAY.astype(">u2") * 1000, np.full(GRAY.shape, 65535, ">u2")]).astype(">u2")
    parts = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0), b"IEND": b""}
    parts[b"IDAT"] = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = (name + parts[name] for name in (b"IHDR", b"IDAT", b"IEND"))
    whole = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], GRAY.astype(np.uint16) * 1000)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL", "IRP"])
def test_a_mask_that_stores_the_same_grid_from_another_corner_is_on_the_grid(tmp_path, codes):
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 1, 2] = labels[3, 0, 5] = 1
    mask = nibabel.Nifti1Image(labels, shifted(0))
    save(tmp_path / "one" / "flair.nii", labels.astype(">i2"), shifted(0))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(shifted(0)), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(mask.as_reoriented(turn), tmp_path / "one" / "seg.nii")
    case = read_first(tmp_path)[1]
    assert np.array_equal(case.mask, case.image[..., 0])


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_a_tiff_that_is_stored_from_another_corner_is_refused(tmp_path, orientation):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
    with pytest.raises(UserError, match=f"must begin at its top left; got orientation {orientation}"):
        read_image(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_stores_one_color_after_the_other_is_the_same_image(tmp_path, compression):
    colors = np.random.default_rng(0).integers(0, 255, (12, 10, 3)).astype(np.uint8)
    planes = np.ascontiguousarray(np.moveaxis(colors, -1, 0))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes, planarconfig="separate", photometric="rgb", compression=compression)
    assert np.array_equal(read_image(path), colors)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0)], ids=["no affine", "a quaternion, which needs the spacing"])
def test_a_spacing_that_is_not_stated_is_refused_not_taken_for_a_millimeter(tmp_path, codes):
    path = tmp_path / "flair.nii"
    content = bytearray(nibabel.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<hh", content, 252, *codes)  # qform_code, sform_code
    struct.pack_into("<f", content, 88, 0.0)  # pixdim[3]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"must state the spacing.*got 1 x 1 x 0"):
        read_volume(path)
    struct.pack_into("<hh", content, 252, 0, 1)
    path.write_bytes(content)
    assert read_volume(path).spacing_mm == (1, 1, 1), "from the affine"


def test_a_packed_file_with_a_wrong_checksum_or_much_behind_its_voxels_is_refused(tmp_path):
    whole = nibabel.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4)).to_bytes()
    packed = bytearray(gzip.compress(whole))
    packed[-6] ^= 1
    (tmp_path / "flair.nii.gz").write_bytes(packed)
    with pytest.raises(UserError, match="cannot be read completely; got CRC"):
        read_volume(tmp_path / "flair.nii.gz")
    (tmp_path / "flair.nii.gz").write_bytes(gzip.compress(whole + bytes(2**22 + 1)))
    with pytest.raises(UserError, match="must end where its voxels do"):
        read_volume(tmp_path / "flair.nii.gz")


def test_a_mask_with_an_ending_in_capitals_is_a_mask(tmp_path):
    save(tmp_path / "a_seg.nii.gz", np.ones(SHAPE, np.uint8))
    (tmp_path / "a_seg.nii.gz").rename(tmp_path / "A_SEG.NII.GZ")
    assert read_mask(tmp_path / "A_SEG.NII.GZ")[0].all()
