"""A request's files: limited, harmless in name, and never a reason for a server error."""

import gzip
import io
import struct
import zipfile

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile

from data.dicom_series import write_series
from glioflow.data.formats.study import read_study
from glioflow.errors import TooLarge, UserError
from glioflow.serving.http.uploads import read_labeled, read_uploads, save_study, save_uploads
from glioflow.serving.settings import Limits

SMALL = Limits(upload_bytes=1 << 20, unpacked_bytes=1 << 20, files=10)


def zipped(entries, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer


def save(tmp_path, *uploads, limits=SMALL):
    folder = tmp_path / "study"
    folder.mkdir()
    return save_uploads(
        [(name, file if hasattr(file, "read") else io.BytesIO(file)) for name, file in uploads], folder, limits
    )


def names(paths):
    return [path.name for path in paths]


@pytest.fixture
def slices(lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return folder, sorted(path for path in folder.iterdir() if "_mask" not in path.name)


def test_slices_and_a_zip_of_them_are_the_same_study(slices, tmp_path):
    folder, files = slices
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    loose = read_uploads([(path.name, path.open("rb")) for path in files], tmp_path / "one", Limits())
    packed = zipped([(f"{folder.name}/{path.name}", path.read_bytes()) for path in files])
    unpacked = read_uploads([("study.ZIP", packed)], tmp_path / "two", Limits())
    assert loose.id == unpacked.id
    assert loose.slice_numbers == unpacked.slice_numbers
    assert (loose.image == unpacked.image).all()


def test_what_systems_add_to_zips_is_left_out(tmp_path):
    entries = [("case/a.tif", b"a"), ("__MACOSX/case/._a.tif", b"x"), ("case/.DS_Store", b"x"), ("case/data.csv", b"x")]
    assert names(save(tmp_path, ("x.zip", zipped(entries)))) == ["a.tif"]


@pytest.mark.parametrize(
    "name", ["../../evil.tif", "/etc/evil.tif", "..\\..\\evil.tif", "a/../../../evil.tif", "..%2fevil.tif", ".evil.tif"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_no_name_leaves_the_folder(tmp_path, name, packed):
    upload = ("x.zip", zipped([(name, b"content")])) if packed else (name, b"content")
    save(tmp_path, upload)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / "study"]
    assert not outside
    assert all(path.name.endswith("evil.tif") for path in (tmp_path / "study").iterdir())


@pytest.mark.parametrize("name", ["", "/", "...", "💥"])
def test_a_file_without_a_usable_name_is_refused_or_renamed(tmp_path, name):
    if name == "💥":
        assert names(save(tmp_path, (name, b"content"))) == ["_"]
    else:
        with pytest.raises(UserError, match="a file must have a name"):
            save(tmp_path, (name, b"content"))


def test_hidden_files_beside_slices_are_left_out_as_they_are_from_a_folder(tmp_path):
    image = io.BytesIO()
    tifffile.imwrite(image, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    image.seek(0)
    others = [("._a_1.tif", io.BytesIO(b"\0\5\x16\7")), (".DS_Store", io.BytesIO(b"x"))]
    case = read_uploads([("a_1.tif", image), *others], tmp_path, Limits())
    assert case.shape[0] == 1
    assert case.warnings == (), "as a zip of them, in which they are never unpacked"


def test_a_zip_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    with pytest.raises(TooLarge, match="unpack to at most 1048576 bytes"):
        save(tmp_path, ("x.zip", zipped([("a.tif", b"\0" * (2 << 20))])))
    assert not list((tmp_path / "study").iterdir())


def test_many_small_bombs_share_one_limit(tmp_path):
    bomb = zipped([("a.tif", b"\0" * (600 << 10))]).getvalue()
    with pytest.raises(TooLarge):
        save(tmp_path, ("x.zip", bomb), ("y.zip", zipped([("b.tif", b"\0" * (600 << 10))])))


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path):
    content = bytearray(zipped([("a.tif", b"\0" * (2 << 20))]).getvalue())
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 10)  # the directory says ten bytes
    with pytest.raises(UserError):
        save(tmp_path, ("x.zip", bytes(content)))
    assert sum(path.stat().st_size for path in (tmp_path / "study").iterdir()) <= SMALL.unpacked_bytes


def test_a_directory_of_a_hundred_thousand_files_is_refused_unread(tmp_path, monkeypatch):
    packed = zipped([(f"{k}.tif", b"") for k in range(50_000)], zipfile.ZIP_STORED)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(TooLarge, match="at most 10 files"):
        save(tmp_path, ("x.zip", packed), limits=SMALL.model_copy(update={"upload_bytes": 1 << 30}))


def test_uploads_beyond_the_limits_are_too_large(tmp_path):
    for number, (uploads, expected) in enumerate(
        [
            ([("a.tif", b"\0" * (2 << 20))], "limit of bytes"),
            ([(f"{k}.tif", b"\0" * (600 << 10)) for k in range(2)], "limit of bytes"),
            ([(f"{k}.tif", b"") for k in range(11)], "at most 10 files"),
            ([("x.zip", zipped([(f"{k}.tif", b"") for k in range(11)]))], "at most 10 files"),
            ([("x.zip", zipped([("a.tif", bytes(range(256)) * (5 << 10))], zipfile.ZIP_STORED))], "bytes together"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(TooLarge, match=expected):
            save(folder, *uploads)


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"different names; got a\.nii"):
        save(tmp_path, ("x.zip", zipped([("one/a.nii", b""), ("two/a.nii", b"")])))


def damaged():
    good = zipped([("a.tif", bytes(range(256)) * 40)]).getvalue()
    encrypted, broken, method = bytearray(good), bytearray(good), bytearray(good)
    directory = good.rfind(b"PK\x01\x02")
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    broken[45:60] = b"\xff" * 15
    method[8], method[directory + 10] = 99, 99
    yield "cut", good[: len(good) // 2]
    yield "nothing", b""
    yield "text", b"this is no zip"
    yield "encrypted", bytes(encrypted)
    yield "broken stream", bytes(broken)
    yield "unknown method", bytes(method)
    yield "end mark only", b"PK\x05\x06" + b"\0" * 18
    yield "end mark cut", b"PK\x05\x06"
    yield "bzip2", zipped([("a.tif", b"x" * 100)], zipfile.ZIP_BZIP2).getvalue()
    yield "lzma", zipped([("a.tif", b"x" * 100)], zipfile.ZIP_LZMA).getvalue()


@pytest.mark.parametrize(
    ("kind", "content"), list(damaged()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_damaged_or_foreign_zip_is_the_users_mistake_and_names_no_place(tmp_path, kind, content):
    (tmp_path / "study").mkdir()
    with pytest.raises(UserError) as error:
        read_uploads([("x.zip", io.BytesIO(content))], tmp_path / "study", SMALL)
    assert str(tmp_path) not in str(error.value)


def test_an_encrypted_zip_and_an_archive_in_a_zip_are_refused_with_what_to_do(tmp_path):
    (tmp_path / "study").mkdir()
    for content, message in (
        (dict(damaged())["encrypted"], "must not be encrypted; pack its files again, without a password"),
        (zipped([("b.tar.gz", b"x")]).getvalue(), r"must be unpacked; got b\.tar\.gz; unpack b\.tar\.gz"),
    ):
        with pytest.raises(UserError, match=message):
            read_uploads([("x.zip", io.BytesIO(content))], tmp_path / "study", SMALL)


@pytest.mark.parametrize("seed", range(40))
def test_a_zip_with_random_damage_never_makes_another_error(tmp_path, seed):
    import random

    rng = random.Random(seed)
    content = bytearray(zipped([("a.tif", bytes(range(256)) * 4), ("b.tif", b"b" * 300)]).getvalue())
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (tmp_path / "study").mkdir()
    try:
        save_uploads([("x.zip", io.BytesIO(content))], tmp_path / "study", SMALL)
    except UserError:
        pass
    assert {path.parent for path in (tmp_path / "study").rglob("*")} <= {tmp_path / "study"}


@pytest.mark.parametrize(
    "uploads",
    [
        [("a.tif", b"no tiff")],
        [("a.tif", b"")],
        [("a.nii", b"no nifti")],
        [("a.xyz", b"?")],
        [("a.tif", b"x"), ("b.nii", b"x")],
        [("case.dcm", b"\0" * 128 + b"DICM")],
    ],
    ids=str,
)
def test_an_unreadable_study_is_refused_without_saying_where_it_lay(tmp_path, uploads):
    (tmp_path / "study").mkdir()
    with pytest.raises(UserError) as error:
        read_uploads([(name, io.BytesIO(content)) for name, content in uploads], tmp_path / "study", SMALL)
    assert str(tmp_path) not in str(error.value)
    assert str(tmp_path) not in str(error.value.choices)


def test_no_file_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one file in its field 'files'"):
        save_uploads([], tmp_path, SMALL)


def as_labeled(uploads, folder, limits):
    return read_labeled(save_study(uploads, folder, limits)[0], folder, limits, labels=(0, 1))


def as_files(uploads, folder, limits):
    return read_study(save_study(uploads, folder, limits)[0], masks=False)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        *((read_uploads, "tumor.nii.gz"), (read_uploads, "a_1_mask.tif"), (as_labeled, "a_seg.nii")),
        *((as_files, "tumor.nii.gz"), (as_files, "a_1_mask.tif")),
    ],
)
def test_a_mask_alone_is_no_study(tmp_path, read, name):
    with pytest.raises(UserError, match=r"a study must have an image; got .*; give the images"):
        read([(name, io.BytesIO(b"?"))], tmp_path, SMALL)


def test_what_breaks_a_reader_is_the_callers_mistake(slices, tmp_path, monkeypatch):
    from glioflow.serving.http import uploads

    def broken(files, **_):
        raise NotImplementedError(f"unknown thing in {files[0]} of John Doe")

    monkeypatch.setattr(uploads, "read_study", broken)
    with pytest.raises(UserError, match="must be readable; got a failure: NotImplementedError") as error:
        read_uploads([("a.tif", io.BytesIO(b"x"))], tmp_path, Limits())
    assert "John" not in str(error.value)


def test_a_zip_of_two_peoples_folders_of_slices_is_refused(tmp_path):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ones((8, 9, 3), np.uint8), photometric="rgb")
    one = {"DOE/s_1.tif": buffer.getvalue(), "DOE/s_1_mask.tif": b""}
    for other, is_refused in (({"SMITH/s_2.tif": buffer.getvalue()}, True), ({"masks/s_2_mask.tif": b""}, False)):
        upload = ("a.zip", zipped((one | other).items()))
        folder = tmp_path / str(is_refused)
        folder.mkdir()
        if is_refused:
            with pytest.raises(UserError, match="of one person") as caught:
                read_uploads([upload], folder, SMALL)
            assert "DOE" not in str(caught.value)
        else:
            assert read_uploads([upload], folder, SMALL).shape == (1, 8, 9)


TIFF = io.BytesIO()
tifffile.imwrite(TIFF, np.ones((8, 9, 3), np.uint8), photometric="rgb")


@pytest.mark.parametrize(
    "uploads",
    [
        [("DOE/s_1.tif", TIFF), ("SMITH/s_2.tif", TIFF)],
        [("C:\\DOE\\s_1.tif", TIFF), ("C:\\SMITH\\s_2.tif", TIFF)],
        [("DOE.zip", zipped([("s_1.tif", TIFF.getvalue())])), ("SMITH.zip", zipped([("s_2.tif", TIFF.getvalue())]))],
        [("DOE.zip", zipped([("s_1.tif", TIFF.getvalue())])), ("s_2.tif", TIFF)],
    ],
)
def test_slices_in_several_folders_or_zips_of_one_upload_are_refused(tmp_path, uploads):
    for _, file in uploads:
        file.seek(0)
    with pytest.raises(UserError, match="of one person") as caught:
        read_uploads(uploads, tmp_path, SMALL)
    assert caught.value.value == "slices in 2 folders"


def test_volumes_in_zips_of_several_persons_are_refused_and_a_zip_a_sequence_is_one_study(tmp_path):
    volume = gzip.compress(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)).to_bytes())
    zips = [{"flair": "DOE", "t1": "DOE", "t1ce": "SMITH"}, {"flair": "FLAIR", "t1": "T1", "t1ce": "T1CE"}]
    for zip_of, folder in zip(zips, (tmp_path / "persons", tmp_path / "sequences"), strict=True):
        folder.mkdir()
        entries = {name: [f"{each}.nii.gz" for each in zip_of if zip_of[each] == name] for name in zip_of.values()}
        uploads = [(f"{name}.zip", zipped((each, volume) for each in held)) for name, held in entries.items()]
        if "DOE" in entries:
            with pytest.raises(UserError, match="of one person"):
                read_uploads(uploads, folder, SMALL)
        else:
            assert read_uploads(uploads, folder, SMALL).channels == ("flair", "t1", "t1ce")


def read_volumes(tmp_path, names):
    """Return the study that these volumes are in a zip, as uploads with folders in their names, and as files."""
    paths = [tmp_path / "files" / name for name in names]
    for value, path in enumerate(paths, start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), value, np.int16), np.eye(4)), path)
    (tmp_path / "study").mkdir()
    upload = ("a.zip", zipped((name, path.read_bytes()) for name, path in zip(names, paths, strict=True)))
    (tmp_path / "loose").mkdir()
    loose = [(name, path.open("rb")) for name, path in zip(names, paths, strict=True)]
    return (
        lambda: read_uploads([upload], tmp_path / "study", SMALL),
        lambda: read_uploads(loose, tmp_path / "loose", SMALL),
        lambda: read_study(paths),
    )


@pytest.mark.parametrize(
    "names",
    [
        ["DOE/flair.nii.gz", "DOE/t1.nii.gz", "SMITH/t1ce.nii.gz", "SMITH/t2.nii.gz"],
        ["x/1/flair.nii", "x/1/t1.nii", "x/2/t1ce.nii", "x/2/t2.nii"],
        ["DOE/anat/flair.nii", "DOE/anat/t1.nii", "SMITH/anat/t1ce.nii", "SMITH/anat/t2.nii"],
        ["DOE/FLAIR/a.nii", "DOE/T1/b.nii", "SMITH/T2/c.nii", "SMITH/T1CE/d.nii"],
        ["DOE/flair.nii", "DOE/t1.nii", "DOE/t2.nii", "SMITH/t1ce.nii"],
    ],
)
def test_folders_of_two_persons_that_complete_each_other_are_refused(tmp_path, names):
    for read in read_volumes(tmp_path, names):
        with pytest.raises(UserError, match="of one person") as caught:
            read()
        assert caught.value.value == "sequences in 2 folders"
        assert "DOE" not in str(caught.value)
        assert "SMITH" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["anat/flair.nii", "anat/t1.nii", "perf/t1ce.nii", "perf/t2.nii"],
        ["p1/anat/flair.nii", "p1/anat/t1.nii", "p1/MRI_structural/t1ce.nii", "p1/MRI_structural/t2.nii"],
        ["a/p1_flair.nii", "a/p1_t1.nii", "b/p1_t1ce.nii", "b/p1_t2.nii"],
        ["p1/flair.nii", "p1/t1.nii", "p1/more/t1ce.nii", "p1/more/t2.nii"],
        ["s1/flair.nii", "s2/t1.nii", "s3/t1ce.nii", "s4/t2.nii"],
        ["FLAIR/flair.nii", "T1/t1.nii", "T1CE/t1ce.nii", "T2/t2.nii"],
        ["FLAIR/image.nii", "T1/image.nii", "T1CE/image.nii", "T2/image.nii"],
        ["p1/FLAIR/p1.nii.gz", "p1/T1/p1.nii.gz", "p1/T1CE/p1.nii.gz", "p1/T2/p1.nii.gz"],
    ],
)
def test_folders_of_one_persons_sequences_are_one_study(tmp_path, names):
    for read in read_volumes(tmp_path, names):
        case = read()
        by_name = dict(zip(case.channels, case.image[0, 0, 0].tolist(), strict=True))
        assert by_name == {"flair": 1, "t1": 2, "t1ce": 3, "t2": 4}


def test_pictures_of_a_viewer_beside_dicom_in_a_zip_are_left_out(tmp_path):
    picture = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(picture, "PNG")
    write_series(tmp_path / "series", np.ones((4, 12, 14), np.uint16), description="AX FLAIR")
    entries = [(f"IMAGES/{path.name}", path.read_bytes()) for path in sorted((tmp_path / "series").iterdir())]
    entries += [(f"VIEWER/{folder}/icon.png", picture.getvalue()) for folder in ("a", "b")]
    (tmp_path / "study").mkdir()
    case = read_uploads([("a.zip", zipped(entries))], tmp_path / "study", SMALL)
    assert (case.channels, case.shape) == (("flair",), (4, 12, 14))
    assert any("left out: icon.png" in warning for warning in case.warnings)


def test_a_full_disk_is_no_mistake_of_the_caller(disk, slices, monkeypatch, tiny):
    import tempfile

    from in_process import Here, client, served

    folder = disk(1)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    api = client(Here(served(tiny)))
    large = [("files", (f"a_{number}.tif", bytes(600_000))) for number in range(4)]
    for files in (large, [("files", ("a.zip", zipped([("a.tif", bytes(3_000_000))]).getvalue()))]):
        response = api.post("/v1/predict", files=files)
        assert response.status_code == 503, response.text
        assert "no room" in response.json()["error"]["rule"]
        assert "Retry-After" in response.headers
    assert "glioflow_out_of_room_total{" in api.get("/metrics").text


def test_a_lack_of_memory_is_no_mistake_of_the_caller(tmp_path, slices, monkeypatch):
    from glioflow.errors import OutOfRoom

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("tifffile.TiffPage.asarray", full)
    with pytest.raises(OutOfRoom):
        read_uploads([(path.name, io.BytesIO(path.read_bytes())) for path in slices[1]], tmp_path, Limits())
