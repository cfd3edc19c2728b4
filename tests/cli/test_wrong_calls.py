"""A hundred wrong calls: each ends as one clear line with exit code 2, at once, and leaves nothing behind."""

import contextlib
import os
import socket
import sqlite3
import sys
import time

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from commands import without_waits
from glioflow.cli import main
from glioflow.cluster import connection

LONG = "x" * 300
RUN = "f" * 32


@pytest.fixture
def folder(tmp_path, lgg, monkeypatch):
    """Fill a folder with what is wrong to give, and go there."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"EC2_METADATA_DISABLED": "true", "CONFIG_FILE": "", "SHARED_CREDENTIALS_FILE": ""}.items():
        monkeypatch.setenv(f"AWS_{name}", value or os.devnull)  # nobody's credentials, and no network
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    files = {
        "some.yaml": "name: some\n",
        "empty.yaml": "",
        "list.yaml": "- a\n",
        "text.yaml": "hello",
        "broken.yaml": "name: [1, 2\n",
        "tabs.yaml": "name: a\n\ttraining: 1\n",
        "twice.yaml": "name: a\nname: b\n",
        "deep.yaml": "a: " + "[" * 9000,
        "alias.yaml": "a: &a [1]\nname: *b\n",
        "knot.yaml": "training: &a {epochs: *a}\n",
        "split.json": '{"train": ["nobody"], "val": ["b"], "test": []}',
        "object.yaml": "name: !!python/object/apply:os.system [ls]\n",
        "date.yaml": "name: 2024-05-01\n",
        "number.yaml": "name: 1\n",
        "true.yaml": "name: a\ntraining: {epochs: true}\n",
        "inf.yaml": "name: a\ntraining: {learning_rate: .inf}\n",
        "typo.yaml": "name: a\ntraning: {epochs: 3}\n",
        "space.yaml": "name: a\nsearch: {space: {training.epochs: {kind: int, low: 1, high: 3}}}\n",
        "rate.yaml": "name: a\nsearch: {space: {training.learing_rate: {kind: float, low: 1, high: 3}}}\n",
        "dise.yaml": "name: a\nsearch: {space: {loss.name: {kind: choice, values: [dise]}}}\n",
        "grid.yaml": "name: a\nsearch: {sampler: grid, space: {training.epochs: {kind: int, low: 1, high: 999999}}}\n",
        "low.yaml": "name: a\nsearch: {space: {training.epochs: {kind: int, low: 3, high: 1}}}\n",
        "first.yaml": "name: a\nsearch: {first: [{training.epochs: 9}], "
        "space: {training.epochs: {kind: int, low: 1, high: 3}}}\n",
        "table.csv": "a,b\n1,2\n",
        "empty.csv": "",
        "notes.txt": "hello",
        "broken.zip": "no zip",
        "broken.tif": "no tiff",
        "broken.nii": "no nifti",
        "cohort/notes.txt": "hello",
        "folder.yaml/x": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    save_file({"first": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "utf16.yaml").write_text("name: a", encoding="utf-16")
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4)), tmp_path / "four.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)), tmp_path / "half.nii.gz")
    return tmp_path


@pytest.fixture
def call(folder, lgg, monkeypatch, capfd):
    """Return a function that runs a command in this process: its exit code, its lines, its seconds."""
    case = next(path for path in sorted(lgg.iterdir()) if path.is_dir())
    monkeypatch.setattr(connection, "_start", lambda *_: pytest.fail("Ray was started"))

    def run(*words):
        known = {"COHORT": str(lgg), "CASE": str(case), "CSV": str(lgg / "data.csv")}
        monkeypatch.setattr(sys, "argv", ["glioflow", *(known.get(word, word) for word in words)])
        capfd.readouterr()
        began = time.perf_counter()
        with pytest.raises(SystemExit) as end:
            main()
        seconds = time.perf_counter() - began
        out, err = capfd.readouterr()
        assert out == ""
        lines = without_waits(err)
        return end.value.code, lines, seconds

    return run


# The call, with / between its words, and what its one line says.
CALLS = """
train nowhere.yaml -> the experiment file nowhere.yaml does not exist
train nothing -> nothing is a folder, not an experiment file; give the path of a YAML file
train dangling.yaml -> does not exist; did you mean alias.yaml? Choose one of: alias.yaml, binary.yaml, broken.yaml, da
train loop -> loop
train folder.yaml -> folder.yaml is a folder, not an experiment file
train LONG -> x
train notes.txt -> notes.txt
train list.yaml -> list.yaml: an experiment file must hold keys and values; write one key in each line
train text.yaml -> text.yaml
train broken.yaml -> broken.yaml
train tabs.yaml -> tabs.yaml
train twice.yaml -> name
train deep.yaml -> nested too deeply
train alias.yaml -> alias.yaml
train object.yaml -> object.yaml
train binary.yaml -> binary.yaml
train utf16.yaml -> utf16.yaml: the encoding of the file must be UTF-8
train date.yaml -> quotes
train number.yaml -> quotes
train true.yaml -> training.epochs
train inf.yaml -> training.learning_rate
train typo.yaml -> did you mean training
train some.yaml --data COHORT -o name=a/b -> name must begin with a letter or digit
train some.yaml --data COHORT -o survival.task=deth01 -> did you mean death01
train some.yaml --data COHORT -o split.method=file -o split.file=nowhere.json -> split.file does not exist
train some.yaml --data COHORT -o split.method=file -o split.file=list.yaml -> list.yaml
train some.yaml --data COHORT -o model.encoder=resnet18 -o model.weights=nowhere.pth -> nowhere.pth
plan COHORT --name a/b -> name must begin with a letter or digit
train some.yaml -> --data DIR
train some.yaml --data nowhere -> nowhere does not exist
train some.yaml --data nothing -> nothing is empty
train some.yaml --data cohort -> holds no files of a known cohort format
train some.yaml --data notes.txt -> notes.txt is not a folder
train some.yaml --data loop -> loop
train some.yaml --data LONG -> x
train some.yaml --data EMPTY -> --data must not be empty
train some.yaml --data= -> --data must not be empty
train some.yaml --data COHORT --resume RUN -> ffff
train some.yaml --data COHORT --resume ../x -> ../x
train some.yaml --data COHORT --resume EMPTY -> --resume must not be empty
train some.yaml --data COHORT -o training.epoch=3 -> did you mean epochs
train some.yaml --data COHORT -o training.epochs=0 -> training.epochs
train some.yaml --data COHORT -o training.epochs=many -> training.epochs
train some.yaml --data COHORT -o training.epochs=true -> training.epochs
train some.yaml --data COHORT -o training.epochs=1.5 -> training.epochs
train some.yaml --data COHORT -o training.learning_rate=.inf -> training.learning_rate
train some.yaml --data COHORT -o training.learning_rate=nan -> training.learning_rate
train some.yaml --data COHORT -o training.epochs -> training.epochs
train some.yaml --data COHORT -o =3 -> =3
train some.yaml --data COHORT -o model.architecture=unett -> unet
train some.yaml --data COHORT -o loss.name=dise -> dice
train some.yaml --data COHORT -o split.folds=1 -> split.folds
train some.yaml --data COHORT -o split.folds=50 -> 50 folds need at least 50 labeled patients
train some.yaml --data COHORT -o split.method=counts -o split.counts=[100,1,1] -> need 102 labeled patients
train some.yaml --data COHORT -o split.method=file -o split.file=nowhere.json -> split.file does not exist
train some.yaml --data COHORT -o split.method=file -o split.file=loop -> split.file does not exist
train some.yaml --data COHORT -o split.method=file -o split.file=notes.txt -> notes.txt
train some.yaml --data COHORT -o split.method=file -o split.file=split.json -> has no case 'nobody'
train some.yaml --data COHORT -o model.weights=nowhere.pth -> the weights file nowhere.pth does not exist
train some.yaml --data COHORT -o model.weights=nothing -> the weights file nothing does not exist
train some.yaml --data COHORT -o model.encoder=resnet18 -o model.weights=notes.txt -> must be a state dict
train some.yaml --data COHORT -o model.encoder=resnet18 -o model.weights=other.safetensors -> does not fit encoder
train some.yaml --data COHORT -o training.cpus_per_worker=9999 -> training needs 9999 CPUs (1 worker of 9999); got
train some.yaml --data COHORT -o training.num_workers=8 -o training.cpus_per_worker=999 -> training needs 7992 CPUs
train some.yaml --data COHORT -o training.gpus_per_worker=64 -> training needs 64 GPUs
crossval some.yaml --data COHORT -o training.cpus_per_worker=9999 -> training needs 9999 CPUs
search space.yaml --data COHORT -o training.cpus_per_worker=9999 -> training needs 9999 CPUs
train some.yaml --data COHORT -o loss.name=cross_entropy -> loss cross_entropy is not defined for a binary task
train some.yaml --data COHORT -o loss.class_weights=[1,10] -> loss.class_weights must have 1 value, one for each output
train some.yaml --data COHORT -o split.seed=-1 -> split.seed must be at least 0
train some.yaml --data COHORT -o training.seed=-1 -> training.seed must be at least 0
train knot.yaml --data COHORT -> inside its own anchor
train some.yaml --data COHORT -o target.kind=regions -> regions
train some.yaml --data COHORT -o training.num_workers=[2,2] -> with fewest below most; got [2, 2]
train some.yaml --data COHORT -o inference.patch=[0,0] -> inference.patch.0 must be greater than 0; got 0
train some.yaml --data COHORT -o training.num_workers=3 -> training.batch_size must be a multiple
train some.yaml --data COHORT -o training.epochs=[ -> training.epochs
train some.yaml --data s4://bucket/x -> the store of s4://bucket/x cannot be opened: Protocol not known: s4; give a path
train some.yaml --dat COHORT -> --dat
train -> EXPERIMENT
train some.yaml extra -> extra
crossval nowhere.yaml --data COHORT -> nowhere.yaml does not exist
crossval some.yaml --data nowhere -> nowhere does not exist
crossval some.yaml --data COHORT --folds 2 -> --folds
crossval some.yaml --data COHORT --folds 99 -> folds
crossval some.yaml --data COHORT --folds three -> must be a whole number; got three
crossval some.yaml --data COHORT --resume RUN -> ffff
search some.yaml --data COHORT -> the experiment some has no search.space; list the searched keys there
search space.yaml --data nowhere -> nowhere does not exist
search space.yaml --data COHORT --resume .. -> --resume must
search space.yaml --data COHORT --resume nowhere -> --resume must name an earlier search
search space.yaml --data COHORT --trials 0 -> --trials
search space.yaml --data COHORT --budget -1 -> budget
search space.yaml --data COHORT --budget nan -> budget
search rate.yaml --data COHORT -> did you mean training.learning_rate
search some.yaml --data COHORT -o search.space={training.epochs:{low:1}} -> search.space.training.epochs.kind must be
search dise.yaml --data COHORT -> loss.name cannot be dise
search grid.yaml --data COHORT -> at most 2000 points
search low.yaml --data COHORT -> low must be below high
search first.yaml --data COHORT -> search.first
search space.yaml --data COHORT -o search.name=../x -> search.name
reproduce RUN -> ffff
reproduce nowhere -> nowhere
evaluate glioma COHORT -> no model 'glioma' is registered
evaluate startr COHORT -> no model 'startr' is registered; did you mean starter?
evaluate nowhere/model COHORT -> nowhere/model
evaluate nothing COHORT -> nothing
evaluate broken.zip COHORT -> broken.zip
evaluate RUN COHORT -> ffff
evaluate a,b COHORT -> no model 'a' is registered
evaluate , COHORT -> model
evaluate http://127.0.0.1:9 COHORT -> http
evaluate glioma COHORT --report some.yaml -> --report must name a folder
compare glioma glioma COHORT -> glioma
compare starter starter COHORT -> a model cannot be compared with itself: every difference would be 0; got starter; give
compare starter http://127.0.0.1:1 COHORT -> http://127.0.0.1:1 is an address, where no model can be opened; give
evaluate http://127.0.0.1:1 COHORT -> http://127.0.0.1:1 is an address, where no model can be opened; give
evaluate starter http://127.0.0.1:1/x -> http://127.0.0.1:1/x could not be read as a prepared cohort
export http://127.0.0.1:1 out -> http://127.0.0.1:1 is an address, where no model can be opened
data check http://127.0.0.1:1 -> the original files of a cohort, not a prepared cohort at an address
compare RUN RUN -> ffff
audit nowhere.yaml --data COHORT -> nowhere.yaml does not exist
audit some.yaml --data COHORT --clinical nowhere.csv --no-train -> nowhere.csv
audit some.yaml --data COHORT --clinical empty.csv --no-train -> empty.csv
audit some.yaml --data COHORT --seen nowhere --no-train -> nowhere
register RUN -> ffff
register nowhere -> a run must be given by its id; got nowhere; `glioflow train` prints it
register http://127.0.0.1:1 -> a run must be given by its id; got http://127.0.0.1:1; `glioflow train` prints it
reproduce http://127.0.0.1:1 -> a run must be given by its id; got http://127.0.0.1:1
promote http://127.0.0.1:1 -> a registered model must be given by its name; got http://127.0.0.1:1
rollback some/where -> a registered model must be given by its name; got some/where
promote glioma -> no model 'glioma' is registered
promote starter -> `starter` ships with GlioFlow and is used without a version or an alias
promote glioma --version 0 -> --version
rollback glioma -> no model 'glioma' is registered
models glioma -> no model 'glioma' is registered
models a'b -> registered
export glioma out -> no model 'glioma' is registered
export glioma notes.txt/x -> OUT must name a folder
plan COHORT --out notes.txt/x.yaml -> --out must name a folder
gc --keep 0 -> --keep
gc --keep many -> --keep
predict glioma CASE --out out -> no model 'glioma' is registered
predict glioma nowhere --out out -> nowhere does not exist
predict glioma nothing --out out -> nothing is empty
predict glioma broken.zip --out out -> broken.zip
predict glioma notes.txt --out out -> notes.txt
predict glioma CASE --out notes.txt -> --out must name a folder
predict glioma CASE -> --out
predict glioma CASE --out out --channel liver=3 -> NAME=SERIES
predict glioma CASE --out out --channel flair -> NAME=SERIES
predict glioma --out out -> STUDY
serve --name glioma -> no model 'glioma' is registered
serve -> no model
serve --port 0 -> --port
serve --shadow 2 -> --shadow
page --port 99999999 -> --port
page --endpoint nowhere -> got nowhere; give one such as http://127.0.0.1:8000
feedback accept nowhere -> nowhere
feedback accept ../x -> ../x
feedback reject nowhere -> nowhere
features nowhere.nii -> nowhere.nii does not exist
features nothing -> nothing is empty
features broken.nii -> broken.nii
features broken.tif -> the TIFF file cannot be read; got a file that does not begin as a TIFF does
features four.nii.gz -> three dimensions
features half.nii.gz -> whole label values
features notes.txt -> notes.txt
features CASE --spacing 1,2 -> z,y,x
features CASE --spacing 1,2,0 -> z,y,x
features CASE --spacing 1,2,inf -> z,y,x
features CASE --spacing nan,1,1 -> z,y,x
features CASE --image nowhere -> nowhere
associate COHORT --clinical nowhere.csv -> nowhere.csv
associate COHORT --clinical empty.csv -> such as Patient; got no columns; choose one of
associate COHORT --clinical table.csv -> table.csv
associate COHORT --clinical CSV --feature asdf -> asd
associate COHORT --clinical CSV --masks RUN -> ffff
associate COHORT --clinical CSV --masks maual -> --masks must be manual, or the run id of a cross-validation; got maual;
associate COHORT --clinical CSV --cluster nowhere -> nowhere
survival fit COHORT --clinical nowhere.csv -> nowhere.csv
survival fit COHORT --clinical empty.csv -> empty.csv
survival fit COHORT --clinical table.csv -> table.csv
survival fit --clinical CSV --masks manual -> cohort
survival fit COHORT --clinical CSV --masks RUN -> ffff
survival fit COHORT --clinical CSV -o survival.tasks=x -> survival
survival fit --clinical CSV --masks nome -> did you mean none
survival fit COHORT --clinical CSV --outcomes nowhere.csv -> nowhere.csv
data synthesize lgq out -> did you mean lgg
data synthesize lgg notes.txt -> notes.txt
data synthesize lgg cohort -> cohort
data synthesize lgg out --patients 0 -> '--patients': must be at least 1; got 0
data synthesize lgg out --patients two -> '--patients': must be a whole number; got two
data synthesize lgg out --size 8 -> --size
data synthesize lgg out --seed -1 -> --seed
data download lgq out -> lgg
data check nowhere -> nowhere
data check nothing -> nothing is empty
data check cohort -> holds no files of a known cohort format
data check notes.txt -> notes.txt
data check s3://bucket/x -> not a prepared cohort
predict starter http://127.0.0.1:9/x --out out -> must be a path, not an address; got http://127.0.0.1:9/x
plan http://127.0.0.1:9/x -> must be a path, not an address; got http://127.0.0.1:9/x
auto s3://bucket/x --hours 1 -> must be a path, not an address; got s3://bucket/x
features http://127.0.0.1:9/x.nii -> must be a path, not an address; got http://127.0.0.1:9/x.nii
associate COHORT --clinical http://127.0.0.1:9/x.csv -> the clinical table must be a path, not an address; got http://127.0.0.1:9/x.csv
data check COHORT --channel flair=x -> --channel needs DICOM or NIfTI
data prepare nowhere out -> nowhere
data prepare COHORT notes.txt -> OUT must name a folder
data prepare COHORT out --experiment nowhere.yaml -> nowhere.yaml does not exist
data prepare COHORT out -o preprocess=[{step:unitt}] -> unit
data prepare COHORT s4://bucket/x -> s4
data describe COHORT --out notes.txt -> --out must name a folder
data describe COHORT --out LONG/LONG -> x
data describe nowhere --out out -> nowhere
data describe COHORT --out COHORT -> --out must not be in the cohort's folder
demo --data nothing -> nothing is empty
auto cohort --hours 1 -> holds no files of a known cohort format
auto nothing --hours 1 -> nothing is empty
auto COHORT --hours inf -> a finite number above 0
train some.yaml --data COHORT -o training.epochs=99999999999999999999 -> training.epochs
train some.yaml --data COHORT -o model.encoder=resnet18 -o model.weights=s3://no/x.pth -> weights cannot be read
predict starter CASE --out COHORT -> must be new or hold an earlier answer
demo --data nowhere -> nowhere does not exist
train some.yaml --data COHORT -o training.start=nowhere.pth -> nowhere.pth does not exist
train some.yaml --data COHORT -o training.start=other.safetensors -> training.start do not fit the network
train some.yaml --data COHORT -o training.sampling.augmentation=hevy -> unknown augmentation 'hevy'
crossval some.yaml --data COHORT -o split.method=counts -o split.counts=[3,1,1] -o split.folds=2 -> at least 3 folds
serve --name starter --gpus 1.5 -> --gpus must be a whole number above 1
serve --name starter --gpus 99 -> 1 predictor needs 99 GPUs
serve --name starter --replicas 99999 -> predictors need 99999 CPUs
serve --name starter --allow-host http://x -> --allow-host must be the name of a host
page --allow-host a/b -> --allow-host must be the name of a host
page --endpoint http://127.0.0.1:99999 -> endpoint
features CASE --scheme bratss -> unknown label scheme 'bratss'
train some.yaml --data COHORT -o training.batch_size=99999999999 -> training.batch_size must be at most 65536
train some.yaml --data COHORT -o training.steps_per_epoch=99999999999 -> training.steps_per_epoch
train some.yaml --data COHORT -o training.learning_rate=1e99 -> training.learning_rate
plan COHORT --minutes inf -> a finite number above 0
evaluate starter COHORT --report COHORT -> --report must not be in the cohort's folder
compare starter starter COHORT --report COHORT -> --report must not be in the cohort's folder
predict starter CASE --out CASE -> --out must not be in the study's folder
predict starter loop --out out -> loop
predict glioma four.nii.gz --out out -> three dimensions
data prepare COHORT cohort -> must be new or hold prepared cases
data synthesize lgg loop -> a broken link
data synthesize upenn-gbm loop -> a broken link
search space.yaml --data COHORT --budget inf -> budget_hours must be a finite number
search space.yaml --data COHORT --budget 1e300 -> budget_hours
search space.yaml --data COHORT --trials 99999999999999 -> trials
search space.yaml --data COHORT --trials -1 -> --trials
search space.yaml --data COHORT --trials nan -> --trials
search space.yaml --data COHORT -o search.trials=99999999999999 -> search.trials
search space.yaml --data COHORT -o search.concurrent=99999999999999 -> search.concurrent
crossval some.yaml --data COHORT --folds 99999999999999999999 -> folds
crossval some.yaml --data COHORT --folds -3 -> --folds
crossval some.yaml --data COHORT --folds 4.5 -> --folds
auto COHORT --hours nan -> a finite number above 0
auto COHORT --hours -1 -> a finite number above 0
auto COHORT --hours 1e300 -> --hours
plan COHORT --minutes nan -> --minutes
plan COHORT --minutes -1 -> --minutes
plan COHORT --minutes 1e300 -> --minutes
promote glioma --version 99999999999999999999 -> no model 'glioma' is registered
promote glioma --version nan -> --version
gc --keep -1 -> --keep
gc --keep nan -> --keep
serve --name starter --replicas 99999999999999999999 -> --replicas
serve --name starter --replicas -1 -> --replicas
serve --name starter --gpus nan -> --gpus
serve --name starter --gpus inf -> --gpus
serve --name starter --gpus -1 -> --gpus
serve --name starter --shadow nan -> --shadow
serve --name starter --canary nan -> --canary
serve --name starter --canary -0.1 -> --canary
serve --name starter --port 65536 -> --port
page --port -1 -> --port
data synthesize lgg out --patients 99999999999 -> patients must be from 1 to 9000
data synthesize lgg out --size 99999999 -> size must be from 32 to 1024
data synthesize upenn-gbm out --size 99999999 -> size must be from 32 to 1024
data synthesize lgg out --patients nan -> --patients
features CASE --spacing 1e300,1,1 -> z,y,x
features CASE --spacing -1,1,1 -> z,y,x
features CASE --spacing 1e-300,1,1 -> z,y,x
features CASE --spacing 1,2,3,4 -> z,y,x
evaluate starter,starter COHORT -> must be different models
evaluate starter, COHORT -> must be different models
predict starter,starter CASE --out out -> must be different models
compare starter,starter starter COHORT -> must be different models
data check ESCAPE -> \\x1b[2Jgone does not exist
tarin -> Did you mean 'train'
data chekc -> check
train some.yaml --jason -> --json
"""
WORDS = {"LONG": LONG, "LONG/LONG": f"{LONG}/{LONG}", "EMPTY": "", "RUN": RUN, "ESCAPE": "\x1b[2Jgone"}


def test_they_are_more_than_a_hundred():
    assert len(CALLS.strip().splitlines()) > 100


@pytest.mark.parametrize("line", CALLS.strip().splitlines())
@pytest.mark.usefixtures("tracking")
def test_a_wrong_call_is_one_clear_line_and_exit_code_2(call, folder, line):
    words, expected = line.split(" -> ")
    before = {path for path in folder.rglob("*") if "home" not in path.parts}
    code, lines, seconds = call(*(WORDS.get(word, word) for word in words.split()))
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: "), lines
    assert expected in lines[-1], lines
    assert not any("Traceback" in text for text in lines)
    assert {path for path in folder.rglob("*") if "home" not in path.parts} == before
    assert not list((folder / "home").glob("auto/*"))
    assert seconds < 20


# What surrounds a call of `train` (and of `models`, where Ray is not the matter), and what its one line says.
SURROUNDINGS = """
GLIOFLOW_HOME=gs://bucket/home -> MLFLOW_TRACKING_URI must name a server (http://...) where GLIOFLOW_HOME is an object
GLIOFLOW_HOME=file:///tmp/home -> GLIOFLOW_HOME must be a path or the address of an object store, not a file: URI
GLIOFLOW_HOME=s3:/bucket/home -> GLIOFLOW_HOME must name a bucket
GLIOFLOW_HOME=~/glioflow -> GLIOFLOW_HOME must not begin with '~'
GLIOFLOW_HOME=/dev/null -> GLIOFLOW_HOME
GLIOFLOW_HOME=/dev/null/home -> GLIOFLOW_HOME
GLIOFLOW_HOME=/proc/self/home -> GLIOFLOW_HOME
GLIOFLOW_HOME=notes.txt -> GLIOFLOW_HOME must name a folder
GLIOFLOW_HOME=loop -> GLIOFLOW_HOME
GLIOFLOW_HOME=LONG -> GLIOFLOW_HOME
GLIOFLOW_HOME=a?b -> GLIOFLOW_HOME
GLIOFLOW_HOME=a%41b -> GLIOFLOW_HOME
MLFLOW_TRACKING_URI=http:// -> MLFLOW_TRACKING_URI must name a reachable store
MLFLOW_TRACKING_URI=http://127.0.0.1:PORT -> nobody answers there
MLFLOW_TRACKING_URI=https://me:secret@127.0.0.1:PORT -> nobody answers there
MLFLOW_TRACKING_URI=http://nowhere.invalid:5000 -> nobody answers there
MLFLOW_TRACKING_URI=http://127.0.0.1:99999 -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=http://[::1 -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=ftp://127.0.0.1/x -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=garbage -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=file:///tmp/mlruns -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=databricks://profile -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:///notes.txt -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:///:memory: -> a database in memory is seen by no other process
MLFLOW_TRACKING_URI=sqlite+aiosqlite:///x.db -> leave out what is behind the '+'
MLFLOW_TRACKING_URI=sqlite:///loop -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:////proc/mlflow.db -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:///file:some.db?mode=ro&uri=true -> give the path of its file
MLFLOW_TRACKING_URI=sqlite:///foreign.db -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:///nothing -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:////proc/none/mlflow.db -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=sqlite:///notes.txt/mlflow.db -> MLFLOW_TRACKING_URI must name a folder
MLFLOW_TRACKING_URI=postgresql:// -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=postgresql://me:secret@127.0.0.1:PORT/db -> MLFLOW_TRACKING_URI
MLFLOW_TRACKING_URI=mysql://127.0.0.1:PORT/db -> MLFLOW_TRACKING_URI
RAY_ADDRESS=127.0.0.1:PORT -> no Ray cluster answers at RAY_ADDRESS
RAY_ADDRESS=ray://127.0.0.1:PORT -> no Ray cluster answers at RAY_ADDRESS
RAY_ADDRESS=nowhere.invalid:6379 -> no Ray cluster answers at RAY_ADDRESS
RAY_ADDRESS=127.0.0.1:99999 -> RAY_ADDRESS
RAY_ADDRESS=http://127.0.0.1:PORT -> is where `ray job submit` goes
RAY_ADDRESS=127.0.0.1 -> RAY_ADDRESS
RAY_ADDRESS=127.0.0.1:MUTE -> what listens there is no Ray
RAY_ADDRESS=ray://127.0.0.1:MUTE -> what listens there is no Ray
RAY_ADDRESS=127.0.0.1:port -> RAY_ADDRESS
RAY_ADDRESS=garbage -> RAY_ADDRESS
RAY_ADDRESS=ray:// -> RAY_ADDRESS
"""


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("line", SURROUNDINGS.strip().splitlines())
@pytest.mark.usefixtures("tracking")
def test_wrong_surroundings_are_one_clear_line_and_exit_code_2_in_a_few_seconds(call, folder, monkeypatch, line):
    setting, expected = line.split(" -> ")
    name, _, value = setting.partition("=")
    mute = socket.create_server(("127.0.0.1", 0))
    port = str(mute.getsockname()[1])
    monkeypatch.setenv(name, value.replace("PORT", closed_port()).replace("MUTE", port).replace("LONG", LONG))
    for words in ("train some.yaml --data COHORT", "models")[: 1 if name == "RAY_ADDRESS" else 2]:
        code, lines, seconds = call(*words.split())
        assert (code, len(lines)) == (2, 1), lines
        assert lines[0].startswith("error: ")
        assert expected in lines[0]
        assert "secret" not in lines[0]
        assert seconds < 15
    mute.close()
    assert not {"gs:", "s3:", "~", "file:", "garbage"} & set(os.listdir(folder))
