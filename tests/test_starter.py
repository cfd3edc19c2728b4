"""`starter` is the model that ships: it answers without training or registry, and no other model takes its name."""

import subprocess
import sys
import zipfile

import pytest
from safetensors import safe_open

import glioflow as gf
from glioflow.bundle import WEIGHTS
from glioflow.bundle.starter import LICENSE, STARTER, find_starter, starter_folder
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError
from glioflow.serving.settings import Trial
from glioflow.serving.versions.loaded import fetch_version, find_wanted

shipped = pytest.mark.skipif(not (starter_folder() / WEIGHTS).is_file(), reason="this checkout has no starter weights")


def test_no_model_of_ones_own_is_registered_under_the_name(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match="ships with GlioFlow"):
        gf.register("0" * 32, name=STARTER)
    assert not (tmp_path / "home").exists()


@shipped
def test_it_is_small_in_half_precision_and_has_a_card_and_a_license_of_its_own():
    folder = find_starter()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    with safe_open(folder / WEIGHTS, "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}
    assert kinds <= {"F16", "I64"}
    assert "CC BY-NC-SA 4.0" in (folder / LICENSE).read_text()
    assert "not for clinical use" in (folder / "card.md").read_text()


@shipped
def test_it_answers_without_a_home_and_without_mlflow(tmp_path):
    synthesize_lgg(tmp_path / "kaggle_3m", patients=1, seed=0, size=64, slices=(10, 12))
    study = next(path for path in (tmp_path / "kaggle_3m").iterdir() if path.is_dir())
    code = (
        "import sys, glioflow as gf\n"
        f"answer = gf.load('starter').predict({str(study)!r})\n"
        "print(answer.json['model']['name'], answer.mask.shape, 'mlflow' in sys.modules)"
    )
    environment = {"PATH": "", "GLIOFLOW_HOME": str(tmp_path / "home"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[0] == "starter"
    assert done.stdout.endswith("64, 64) False\n")
    assert not (tmp_path / "home").exists()


@shipped
def test_its_license_and_card_travel_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "home"))
    gf.export(STARTER, tmp_path / "named")
    gf.export(str(find_starter()), tmp_path / "by-folder.zip")
    with zipfile.ZipFile(tmp_path / "by-folder.zip") as archive:
        archive.extractall(tmp_path)
    for folder in (tmp_path / "named", tmp_path / "by-folder"):
        assert (folder / LICENSE).read_text() == (find_starter() / LICENSE).read_text()
        assert (folder / "card.md").read_text() == (find_starter() / "card.md").read_text()
        assert LICENSE in (folder / "SHA256SUMS").read_text()
    assert gf.load(tmp_path / "by-folder.zip").description == gf.load(STARTER).description


@shipped
def test_it_is_served_without_a_registry():
    wanted = find_wanted(STARTER, Trial())
    assert wanted.champion is not None
    assert (wanted.champion.name, wanted.champion.version) == (STARTER, 0)
    assert fetch_version(wanted.champion) == find_starter()
