"""MetaImage and NRRD: read as ITK reads them, and without its parsers, which a hostile header ends."""

import struct
import zlib

import numpy as np
import pytest
import SimpleITK

from glioflow.data.formats.itk import count_values, read_itk
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.formats.study import read_study
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import TooLarge, UserError

VOXELS = np.random.default_rng(0).integers(0, 200, (3, 4, 5))
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {big}\nCompressedData = {packed}\n"
    "{more}"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = {sides}\n"
    "ElementType = {kind}\nElementDataFile = LOCAL\n"
)
NRRD = (
    "NRRD0004\ntype: short\ndimension: {dimension}\nspace: {space}\nsizes: {sides}\nspacings: 1 1 1\n{more}"
    "encoding: {encoding}\nendian: little\n\n"
)


def meta(data=bytes(120), **fields):
    values = {"big": False, "packed": False, "more": "", "sides": "5 4 3", "kind": "MET_SHORT", **fields}
    return META.format(**values).encode() + data


def nrrd(data=bytes(120), **fields):
    values = {
        "dimension": 3,
        "space": "left-posterior-superior",
        "sides": "5 4 3",
        "more": "",
        "encoding": "raw",
        **fields,
    }
    return NRRD.format(**values).encode() + data


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return read_itk(path, most_voxels=10**6)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_what_itk_writes_is_read_as_itk_reads_it(tmp_path, ending, packed, kind):
    image = SimpleITK.GetImageFromArray(VOXELS.astype(kind))
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(TURNED)
    SimpleITK.WriteImage(image, str(tmp_path / f"a.{ending}"), packed)
    data, affine, oriented = read_itk(tmp_path / f"a.{ending}", most_voxels=60)
    assert oriented
    assert data.dtype == kind
    assert np.array_equal(data, VOXELS.T)
    for index in [(0, 0, 0), (1, 2, 1), (4, 0, 2)]:
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(affine @ (*index, 1), (*point, 1))


def test_other_byte_orders_and_spaces_are_read_as_they_mean(tmp_path):
    assert read(tmp_path, "a.mha", meta(struct.pack(">60h", *range(60)), big=True))[0][1, 0, 0] == 1
    directions = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)\n"
    _, ras, _ = read(tmp_path, "a.nrrd", nrrd(space="right-anterior-superior", more=directions))
    assert ras.tolist() == [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mha", meta().replace(b"NDims = 3", b"NDims = 100"), "three dimensions"),
        ("a.mha", meta().replace(b"NDims = 3", b"NDims = -1"), "three dimensions"),
        ("a.mha", meta(more="ElementNumberOfChannels = 100000000\n"), "one value a voxel"),
        ("a.mha", meta(more="DimSize = 9999 9999 9999\n"), "describe a volume"),
        ("a.mha", meta(sides="0 4 3"), "describe a volume"),
        ("a.mha", meta(more="HeaderSize = -1\n"), "describe a volume"),
        ("a.mha", meta().replace(b"Spacing = 1 1 1", b"Spacing = " + b"1 " * 1000), "1000 numbers"),
        ("a.mha", meta().replace(b"= LOCAL", b"= /etc/passwd"), "another file"),
        ("a.mha", meta(zlib.compress(bytes(10**7)), packed=True), "completely"),
        ("a.mha", meta(zlib.compress(bytes(100)), packed=True), "completely"),
        ("a.mha", meta(bytes(119)), "completely"),
        ("a.mha", meta(kind="MET_STRING"), "MET_STRING"),
        ("a.nrrd", nrrd(dimension=100, sides="1 " * 100), "three dimensions"),
        ("a.nrrd", nrrd(more="datafile: /etc/passwd\n"), "another file"),
        ("a.nrrd", nrrd(more="byte skip: 100000000000\n"), "follow the header"),
        ("a.nrrd", nrrd(encoding="text"), "raw and gzip"),
        ("a.nrrd", b"NRRD0004\n" + bytes(100), "header"),
    ],
)
def test_a_hostile_header_is_refused_and_ends_no_process(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize(
    "content", [meta().replace(b"ElementSpacing = 1 1 1\n", b""), nrrd().replace(b"spacings", b"x")]
)
def test_a_spacing_that_is_not_stated_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r"no (?:elementspacing|spacings)"):
        read(tmp_path, "a.mha" if content.startswith(b"Object") else "a.nrrd", content)


@pytest.mark.parametrize("content", [meta().replace(b"TransformMatrix", b"Comment"), nrrd(space="")])
def test_a_header_without_an_orientation_has_none(tmp_path, content):
    assert not read(tmp_path, "a.mha" if content.startswith(b"Object") else "a.nrrd", content)[2]


def test_a_header_that_is_long_for_a_parser_in_c_is_a_header(tmp_path):
    assert read(tmp_path, "a.nrrd", nrrd(more=f"kinds: {'x' * 5000} a b\n"))[0].shape == (5, 4, 3)


def test_what_a_header_states_is_known_before_anything_is_unpacked(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(nrrd(b"", sides="5000 5000 5000", encoding="gzip"))
    assert count_values(tmp_path / "a.nrrd") == (125 * 10**9, 250 * 10**9)
    with pytest.raises(TooLarge):
        read_itk(tmp_path / "a.nrrd", most_voxels=10**6)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_the_mask_of_a_study_in_other_formats_of_volumes_is_written_as_nifti(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(VOXELS.astype("int16"))
    image.SetSpacing((0.5, 2.0, 3.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"p1_flair.{ending}"))
    case = read_study([tmp_path / f"p1_flair.{ending}"])
    mask = np.arange(case.image.size, dtype=np.uint8).reshape(case.shape) % 3
    written = write_mask(mask, case, tmp_path / "out", native_format(case))
    again, spacing = read_mask(written)
    assert np.array_equal(again, mask)
    assert spacing == case.spacing_mm
