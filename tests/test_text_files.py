"""A text that a spreadsheet or an old editor saved in another encoding says so, whatever kind of file it is."""

import nibabel
import numpy as np
import pytest

from glioflow.config.experiment import load_experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.splits import SplitSettings, read_split
from glioflow.errors import UserError
from glioflow.survival.clinical_table import read_clinical


@pytest.fixture
def folder(tmp_path):
    """Return a folder with one image and nothing else."""
    nibabel.save(nibabel.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.eye(4)), tmp_path / "p1.nii.gz")
    return tmp_path


# File, its text, and what reads it.
READ = {
    "cohort.csv": ("patient,flair\nJosé,p1.nii.gz\n", lambda file: open_cohort(file.parent)),
    "list.csv": ("patient,flair\nJosé,p1.nii.gz\n", open_cohort),
    "list.json": ('{"training": [{"image": "p1.nii.gz", "patient":\n"José"}]}', open_cohort),
    "dataset.json": ('{"labels": {"background": 0,\n"ödème": 1}}', lambda file: open_cohort(file.parent)),
    "cohort.yaml": ("labels:\n  1: ödème\n", lambda file: open_cohort(file.parent)),
    "clinical.csv": ("Patient,name\np1,José\n", read_clinical),
    "split.json": (
        '{"train": ["a"],\n"val": ["José"]}',
        lambda file: read_split(SplitSettings(method="file", file=str(file)), None),
    ),
    "study.yaml": ("name: x\nsubject: José\n", load_experiment),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_in_another_encoding_says_where_and_what_to_do(folder, name):
    text, read = READ[name]
    (folder / name).write_bytes(text.encode("latin-1"))
    told = rf"{name}: the encoding of the file must be UTF-8; got the byte 0x[ef].* in line 2; save it as UTF-8"
    with pytest.raises(UserError, match=told):
        read(folder / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_and_a_split_are_read_as_a_spreadsheet_and_a_shell_save_them(folder, encoding):
    for name in ("list.csv", "clinical.csv", "split.json"):
        text, read = READ[name]
        (folder / name).write_bytes(text.encode(encoding))
        read(folder / name)
