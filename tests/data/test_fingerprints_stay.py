"""Cohorts that earlier versions read keep their fingerprints, so that what was prepared of them is found again."""

import json
from dataclasses import replace
from functools import partial

import nibabel
import numpy as np
import pytest

from glioflow.config import Experiment
from glioflow.data.formats import nifti
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import FileRoles
from glioflow.data.prepared.digests import digest_cases, digest_reading
from glioflow.data.prepared.manifest import fingerprint_of
from glioflow.data.prepared.preparation import prepare, prepare_in
from glioflow.errors import UserError


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.rpartition("/")[2].encode())


def lgg(root):
    case = "TCGA_CS_4941_19960909"
    put(root, *(f"{case}/{case}_{n}{end}.tif" for n in (1, 2, 10) for end in ("", "_mask")))


def brats(root, case="BraTS2021_00006", ends=("_flair", "_t1", "_t1ce", "_t2", "_seg")):
    put(root, *(f"{case}/{case}{end}.nii.gz" for end in ends))


def nnunet(root):
    put(root, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"tumor": 1}}))


COHORTS = {
    "lgg": lgg,
    "brats to 2021": brats,
    "brats from 2023": lambda root: brats(root, "BraTS-GLI-00001-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")),
    "UCSF-PDGM": lambda root: brats(root, "UCSF-PDGM-0004", ("_FLAIR", "_T1", "_T1c", "_T2", "_tumor_segmentation")),
    "nnU-Net": nnunet,
    "a folder for each case": lambda root: put(root, "p1/flair.nii.gz", "p1/t1.nii.gz", "p1/mask.nii.gz"),
    "BIDS": lambda root: put(root, "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"),
}
# As version 0.1 with the formats of 2026-11-27 16:21 (commit 8bc04e1) gave them.
KNOWN = {
    "lgg": ("281455cc50d686722607bea6095f8c7c", "281455cc50d686722607bea6095f8c7c"),
    "brats to 2021": ("07a44c52db4585b2a2ad424ade7a8aee", "07a44c52db4585b2a2ad424ade7a8aee"),
    "brats from 2023": ("311b9e77e01d7cfbdb89e51c5aaf61da", "311b9e77e01d7cfbdb89e51c5aaf61da"),
    "UCSF-PDGM": ("5e9ff9f66619e56f97e83c9f4a9421e3", "5e9ff9f66619e56f97e83c9f4a9421e3"),
    "nnU-Net": ("fcdcbaefcfca8bd4666f36a0c561bc97", "fc4cf2bb4be0a2a98b3b725b3d83c0b1"),
    "a folder for each case": ("1a7cc5e830e3eb979aa443cc398aa640", "1a7cc5e830e3eb979aa443cc398aa640"),
    "BIDS": ("c4d410d3d92ee3f503dd139a88c9e3c3", "c4d410d3d92ee3f503dd139a88c9e3c3"),
}


@pytest.mark.parametrize("kind", COHORTS)
def test_a_cohort_keeps_its_fingerprints(tmp_path, kind):
    COHORTS[kind](tmp_path)
    cohort = open_cohort(tmp_path)
    digests = digest_cases(cohort, ())
    assert (fingerprint_of(digests, ()), fingerprint_of(digests, (), digest_reading(cohort))) == KNOWN[kind]


def other_persons(cohort):
    return replace(cohort, cases=tuple(replace(case, patient=case.id) for case in cohort.cases))


def masks_as_images(cohort):
    roles = FileRoles(images=("*",))
    return replace(cohort, roles=roles, reader=partial(nifti.read, roles=roles))


@pytest.mark.parametrize("earlier", [other_persons, masks_as_images])
def test_what_an_earlier_version_prepared_of_other_persons_or_masks_stays_and_is_not_taken(tmp_path, earlier):
    steps = Experiment.model_validate({"name": "a", "preprocess": [{"step": "zscore"}]}).preprocess
    for name in ("p1/baseline/t1", "p1/baseline/tumor", "p1/week1/t1", "p1/week1/tumor"):
        path = tmp_path / "raw" / f"{name}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.eye(4, dtype=np.uint8)[None].repeat(4, 0), np.eye(4)), path)
    cohort = open_cohort(tmp_path / "raw")
    old = prepare_in(earlier(cohort), steps, home=tmp_path)
    new = prepare_in(cohort, steps, home=tmp_path)
    assert new.path == prepare_in(cohort, steps, home=tmp_path).path != old.path
    assert {(entry.patient, entry.volume_px) for entry in new.entries()} == {("p1", 16)}
    assert new.manifest.source_fingerprint == old.manifest.source_fingerprint
    with pytest.raises(UserError, match="other sources or settings"):
        prepare(cohort, old.path, steps)
