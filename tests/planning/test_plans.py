"""A plan follows from the cohort and the machine, says why, and is an experiment that can be trained."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import yaml

import glioflow as gf
from glioflow.config.experiment import check_search, load_experiment
from glioflow.data.formats.dataset_json import regions_in
from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.label_schemes import SCHEMES
from glioflow.planning import facts as facts_module
from glioflow.planning import rules, sizes
from glioflow.planning.facts import CohortFacts, LabelFacts, Machine, look_at_machine, measure_cohort
from glioflow.planning.plan import plan
from glioflow.planning.speed import StepCost

CPU, GPU = Machine(2), Machine(16, ("H200",), 141.0)
BRATS = {
    1: LabelFacts("necrotic core", 1.0, 5000),
    2: LabelFacts("edema", 1.0, 50000),
    4: LabelFacts("enhancing tumor", 0.8, 9000),
}


def facts(**changes):
    base = {
        "source": "cohort",
        "format": "nifti",
        "cases": 100,
        "patients": 100,
        "institutions": 3,
        "read": 48,
        "channels": ("flair", "t1", "t1ce", "t2"),
        "shape": (155, 240, 240),
        "spacing_mm": (1.0, 1.0, 1.0),
        "head": (139, 165, 136),
        "values": (0.0, 3000.0),
        "whole_numbers": True,
        "background": 0.8,
        "intensities": {"flair": (40.0, 300.0, 1200.0), "t1": (40.0, 300.0, 1200.0)},
        "missing": {"flair": 0, "t1": 0},
        "labels": BRATS,
        "tumor_slices": 0.4,
        "in_one_piece": 0.99,
        "outcomes": 0,
        "slices": 15500,
    }
    return CohortFacts(**{**base, **changes})


def at(machine):
    """Plan for a machine as if it were this one."""
    return lambda work: machine if work is look_at_machine else work()


def settings(choices):
    return {choice.key: choice.value for choice in choices}


def test_isotropic_volumes_get_a_3d_network_and_thick_slices_do_not():
    assert sizes.is_volumetric(facts())[0]
    assert not sizes.is_volumetric(facts(spacing_mm=(6.0, 1.0, 1.0)))[0]
    assert sizes.is_volumetric(facts(spacing_mm=(1.0, 3.75, 3.75)))[0]
    assert not sizes.is_volumetric(facts(spacing_mm=None))[0]
    assert not sizes.is_volumetric(facts(head=(20, 165, 136)))[0]
    thick = settings(rules.plan_network(facts(spacing_mm=(6.0, 1.0, 1.0)), CPU, weights=None))
    assert thick["model.architecture"] == "unet"


def test_slices_get_a_thin_decoder_on_cpu_cores_where_the_usual_one_takes_most_of_a_step():
    thick = facts(spacing_mm=(6.0, 1.0, 1.0))
    on_cpu, on_gpu = (settings(rules.plan_network(thick, machine, weights=None)) for machine in (CPU, GPU))
    assert on_cpu["model.options"]["decoder_channels"] == rules.THIN_DECODER
    assert "model.options" not in on_gpu
    assert "model.options" not in settings(rules.plan_network(facts(), CPU, weights=None)), "3D networks have no such"


def test_labels_of_brats_become_its_regions_whatever_their_numbers():
    newer = {1: BRATS[1], 2: BRATS[2], 3: BRATS[4]}
    assert settings(rules.plan_target(facts()))["target.regions"] == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    assert settings(rules.plan_target(facts(labels=newer)))["target.decode"] == {"WT": 2, "TC": 1, "ET": 3}


@pytest.mark.parametrize("name", ["brats-2024-gli", "brats-2024-ped", "decathlon", "brats-2013"])
def test_labels_of_a_known_set_become_the_regions_that_are_scored_on_it(name):
    named = {value: LabelFacts(label, 1, 9) for value, label in SCHEMES[name].labels.items()}
    chosen = settings(rules.plan_target(facts(labels=named)))
    assert {name: tuple(values) for name, values in chosen["target.regions"].items()} == SCHEMES[name].regions
    assert chosen["target.decode"] == SCHEMES[name].decode


def test_regions_that_the_cohort_declares_are_learned():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "bright": 3}
    named = {1: LabelFacts("whole", 1, 9), 2: LabelFacts("core", 1, 9), 3: LabelFacts("bright", 1, 9)}
    declared = regions_in({"labels": labels, "regions_class_order": [1, 2, 3]})
    chosen = settings(rules.plan_target(facts(labels=named, regions=declared)))
    assert chosen["target.regions"] == {"whole": [1, 2, 3], "core": [2, 3], "bright": [3]}
    assert chosen["target.decode"] == {"whole": 1, "core": 2, "bright": 3}


def test_regions_need_not_give_each_label_a_number():
    labels = {"background": 0, "WT": [1, 2, 3], "RC": [4]}
    declared = regions_in({"labels": labels, "regions_class_order": [1, 4]})
    named = {value: LabelFacts(name, 1, 9) for value, name in declared.labels.items()}
    chosen = settings(rules.plan_target(facts(labels=named, regions=declared)))
    target = TargetSettings(kind="regions", regions=chosen["target.regions"], decode=chosen["target.decode"])
    target.check_labels([1, 2, 3, 4], "the cohort", declared.labels)
    assert (target.regions, target.decode) == ({"WT": (1, 2, 3), "RC": (4,)}, {"WT": 1, "RC": 4})


def test_other_labels_are_classes_and_one_label_is_a_tumor():
    others = {1: LabelFacts("cyst", 1, 9), 2: LabelFacts("solid tumor", 1, 9), 3: LabelFacts("blood", 1, 9)}
    assert settings(rules.plan_target(facts(labels=others)))["target.labels"] == [1, 2, 3]
    assert settings(rules.plan_target(facts(labels={7: LabelFacts("tumor", 1, 9)}))) == {"target.kind": "binary"}


FILES_OF_BYTES = {"spacing_mm": None, "background": 0.02, "head": (36, 256, 256), "shape": (36, 256, 256)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({**FILES_OF_BYTES, "values": (0.0, 255.0)}, ["unit", "resize"]),
        ({**FILES_OF_BYTES, "values": (0.0, 900.0)}, ["percentile", "resize"]),
        ({"spacing_mm": None, "values": (0.0, 900.0)}, ["crop_box", "pad_square", "percentile", "resize"]),
        ({}, ["crop_box", "resample", "zscore"]),
    ],
)
def test_preprocessing_follows_the_values_and_the_background(changes, expected):
    assert [step["step"] for step in rules.plan_preprocessing(facts(**changes), CPU).value] == expected


def test_a_gpu_gets_finer_voxels_larger_patches_and_a_batch_by_trying():
    steps = {machine: rules.plan_preprocessing(facts(), machine).value[1]["spacing_mm"] for machine in (CPU, GPU)}
    assert steps == {CPU: [2.0, 2.0, 2.0], GPU: [1.0, 1.0, 1.0]}
    assert sizes.patch_size(facts(), CPU, [2.0] * 3) == [64, 64, 64]
    assert sizes.patch_size(facts(), GPU, [1.0] * 3) == [128, 128, 128]
    slices = facts(spacing_mm=None)
    trained = settings(rules.plan_training(slices, GPU, minutes=60, seconds_per_step=0.01))
    assert (trained["training.batch_size"], trained["training.gpus_per_worker"]) == ("auto", 1)


@pytest.mark.parametrize(
    ("head", "own", "spacing", "patch"),
    [
        ((139, 165, 136), 1.0, 2.0, [64, 64, 64]),
        ((60, 57, 41), 1.0, 1.0, [64, 64, 48]),
        ((90, 96, 80), 1.0, 1.5, [64, 64, 64]),
        ((27, 36, 36), 0.01, 0.01, [32, 48, 48]),  # millimeters that are none
        ((27, 36, 36), 10.0, 10.0, [32, 48, 48]),
    ],
)
def test_cores_get_coarser_voxels_only_where_the_head_is_larger_than_a_patch(head, own, spacing, patch):
    volume = facts(head=head, spacing_mm=(own,) * 3)
    assert sizes.working_spacing(volume, CPU) == [spacing] * 3
    assert sizes.patch_size(volume, CPU, [spacing] * 3) == patch
    assert rules.plan_preprocessing(volume, CPU).value[1]["spacing_mm"] == [spacing] * 3


def test_heads_that_are_cut_out_differ_in_shape_and_are_not_stretched():
    square = facts(spacing_mm=None, head=(30, 160, 160), values=(0.0, 900.0))
    steps = [step["step"] for step in rules.plan_preprocessing(square, CPU).value]
    assert steps == ["crop_box", "pad_square", "percentile", "resize"]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 6.0), (1.0, 6.0, 1.0)])
def test_slices_acquired_along_another_axis_are_not_said_to_lie_close(spacing):
    volumetric, why = sizes.is_volumetric(facts(spacing_mm=spacing, head=(60, 60, 60)))
    assert volumetric
    assert "within a slice lie up to 6.0 times as far apart" in why


def test_thin_volumes_get_neighboring_slices_as_channels_unless_slices_lie_far_apart():
    def steps(**changes):
        return [step["step"] for step in rules.plan_preprocessing(facts(**changes), CPU).value]

    assert "neighbors" in steps(head=(20, 165, 136))
    assert "neighbors" not in steps(head=(20, 165, 136), spacing_mm=(6.0, 1.0, 1.0))
    assert "neighbors" not in steps(head=(20, 165, 136), spacing_mm=None)
    assert "neighbors" not in steps(head=(1, 165, 136))


def test_little_memory_halves_the_batch_and_the_patch():
    assert [sizes.batch_size(False, halved=n) for n in (0, 1, 5)] == [16, 8, 2]
    assert sizes.patch_size(facts(), CPU, [2.0] * 3, halved=1) == [32, 64, 64]
    assert sizes.patch_size(facts(), GPU, [1.0] * 3, halved=9) == [32, 32, 32]


def test_a_longer_time_trains_longer_and_varies_more():
    def trained(minutes):
        return settings(rules.plan_training(facts(), CPU, minutes=minutes, seconds_per_step=1.0))

    def steps(chosen):
        return chosen["training.epochs"] * chosen["training.steps_per_epoch"]

    assert steps(trained(10)) < steps(trained(60)) <= 0.7 * 3600
    assert (trained(10)["training.sampling.augmentation"], trained(60)["training.sampling.augmentation"]) == (
        "light",
        "strong",
    )


def test_short_trainings_of_slices_are_validated_without_mirrored_averages():
    assert settings(rules.plan_length(4, 250, "", by_slices=True))["inference.flip"] is False
    assert settings(rules.plan_length(8, 250, "", by_slices=True))["inference.flip"] is True
    assert "inference.flip" not in settings(rules.plan_length(8, 250, "", by_slices=False))


def test_nothing_is_chosen_on_two_validation_patients():
    few = settings(rules.plan_inference(facts(patients=5, cases=5)))
    assert (few["training.keep"], few["postprocess.choose"], few["postprocess.largest_component"]) == (
        "last",
        False,
        True,
    )
    scattered = settings(rules.plan_inference(facts(patients=5, cases=5, in_one_piece=0.6)))
    assert "postprocess.largest_component" not in scattered
    assert settings(rules.plan_inference(facts()))["postprocess.choose"] is True


@pytest.fixture(scope="module")
def lgg(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "lgg set"
    synthesize_lgg(path, patients=6, seed=0, size=64)
    return path


def test_the_file_of_a_plan_is_an_experiment_with_a_reason_above_every_choice(lgg, tmp_path):
    made = gf.plan(lgg, tmp_path / "plan.yaml", minutes=1, say=lambda *_: None)
    read = load_experiment(tmp_path / "plan.yaml")
    check_search(read)
    assert read == made.experiment
    assert (read.name, read.target.kind, read.model.architecture) == ("lgg-set", "binary", "unet")
    lines = made.text.splitlines()
    for choice in made.choices:
        key = choice.key.split(".")[-1] + ":"
        assert any(
            line.strip().startswith(key) and lines[k - 1].strip().startswith("# ") for k, line in enumerate(lines)
        )
    assert read.data.source == str(lgg)
    with pytest.raises(UserError, match="exists already"):
        gf.plan(lgg, tmp_path / "plan.yaml")


def test_long_names_of_folders_and_line_breaks_in_labels_leave_the_file_an_experiment(lgg, tmp_path):
    cohort = open_cohort(lgg)
    odd = replace(cohort, path=tmp_path / ("n" * 120), labels={1: "core\nloss: {name: bce}\x07"})
    made = plan(odd, minutes=1, source=str(lgg))
    assert made.experiment.name == "n" * 60
    assert "# One label: 1 core loss: {name: bce}" in made.text


def test_a_plan_fits_the_memory_of_the_machine(lgg):
    cohort = open_cohort(lgg)
    ample, tight = (plan(cohort, minutes=1, there=at(Machine(1, memory_gb=each))) for each in (16, 0.07))
    assert ample.experiment.training.batch_size == 16
    assert tight.experiment.training.batch_size in (2, 4, 8), "fewer, by how many bytes this machine's precision takes"
    assert "of the 0.035 GB for it" in tight.text
    with pytest.raises(UserError, match="must fit into memory"):
        plan(cohort, minutes=1, there=at(Machine(1, memory_gb=0.001)))


def test_missing_sequences_and_intensities_are_counted_by_channel(lgg):
    cohort = open_cohort(lgg)

    def read(files):
        case = cohort.read_files(files)
        image = case.image.copy()
        image[..., 0] = image[..., case.channels.index("flair")] if files.id < cohort.cases[2].id else 0
        return replace(case, image=image)

    facts_of = measure_cohort(replace(cohort, reader=read))
    assert facts_of.missing == {"pre": 6, "flair": 0, "post": measure_cohort(cohort).missing["post"]}
    low, middle, high = facts_of.intensities["flair"]
    assert 0 < low < middle < high <= 255
    assert facts_of.intensities["pre"][2] > 0


def test_volumes_of_brats_are_planned_in_3d_on_two_cores(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=3, seed=0, size=64)
    made = plan(open_cohort(tmp_path / "brats"), minutes=1, there=at(CPU))
    assert made.experiment.model.architecture == "unet3d"
    assert made.experiment.target.names == ("WT", "TC", "ET")
    assert yaml.safe_load(made.text)["training"]["sampling"]["patch"] == list(made.experiment.training.sampling.patch)


def test_a_label_that_no_case_read_has_is_planned_for_too(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=3, seed=0, size=64)
    cohort = open_cohort(tmp_path / "brats")
    read = cohort.reader
    without = replace(
        cohort, reader=lambda files: (case := read(files)) and replace(case, mask=(case.mask == 2) * np.uint8(2))
    )
    labels = measure_cohort(without).labels
    assert {value: label.share for value, label in labels.items()} == {1: 0, 2: 1, 4: 0}
    assert settings(rules.plan_target(facts(labels=labels)))["target.regions"]["ET"] == [4]


def test_a_cohort_without_masks_or_with_values_that_are_no_numbers_is_refused(lgg, tmp_path):
    import shutil

    import tifffile

    bare = tmp_path / "bare"
    shutil.copytree(lgg, bare)
    for mask in bare.rglob("*_mask.tif"):
        mask.unlink()
    with pytest.raises(UserError, match="needs masks"):
        measure_cohort(open_cohort(bare))
    image = next(path for path in sorted(lgg.rglob("*.tif")) if "_mask" not in path.name)
    broken = tmp_path / "broken"
    shutil.copytree(lgg, broken)
    values = tifffile.imread(image).astype(np.float32)
    values[0, 0] = np.nan
    tifffile.imwrite(broken / image.relative_to(lgg), values)
    with pytest.raises(UserError):
        gf.plan(broken, say=lambda *_: None)


@pytest.mark.parametrize("patients", [1, 2])
def test_persons_too_few_for_a_split_are_refused(tmp_path, patients):
    synthesize_lgg(tmp_path / "few", patients=patients, seed=0, size=64, slices=(4, 5))
    with pytest.raises(UserError, match="masks of at least 3 persons"):
        gf.plan(tmp_path / "few", say=lambda *_: None)


@pytest.mark.parametrize(("masks", "rule"), [(0, "no case that was read has one"), (1, "3 persons.*got about 2")])
def test_cases_that_were_not_read_are_not_said_to_have_no_mask(lgg, monkeypatch, masks, rule):
    cohort = open_cohort(lgg)
    monkeypatch.setattr(facts_module, "READ", 3)
    first = cohort.cases[0].id

    def read(files):
        case = cohort.read_files(files)
        return case if masks and files.id == first else replace(case, mask=None)

    with pytest.raises(UserError, match=rf"{rule}.* of {len(cohort.cases)} cases were not read"):
        measure_cohort(replace(cohort, reader=read))


def test_cases_with_other_sequences_are_refused_with_the_ways_to_go_on(lgg):
    cohort = open_cohort(lgg)

    def read(files):
        case = cohort.read_files(files)
        if files.id == cohort.cases[0].id:
            return case
        return replace(case, image=case.image[..., :1], channels=case.channels[:1])

    with pytest.raises(UserError, match="skip_incomplete: true"):
        measure_cohort(replace(cohort, reader=read))


def test_a_cohort_whose_masks_are_all_empty_is_refused(lgg):
    cohort = open_cohort(lgg)

    def read(files):
        case = cohort.read_files(files)
        return replace(case, mask=np.zeros_like(case.mask))

    with pytest.raises(UserError, match="a plan needs tumors to learn from"):
        measure_cohort(replace(cohort, reader=read))


def test_only_patients_with_a_mask_are_dealt_over_the_folds(tmp_path):
    synthesize_layout("brats-2018", tmp_path / "brats", patients=6)
    for case in open_cohort(tmp_path / "brats").cases[:2]:
        case.files[-1].unlink()
    facts = measure_cohort(open_cohort(tmp_path / "brats"))
    method, folds = rules.plan_split(facts)
    assert (facts.patients, facts.cases, folds.value) == (4, 6, 4)
    assert method.reason == "by patient: 4 patients with masks, 6 cases"


def test_a_plan_is_for_the_machine_where_trainings_run_and_steps_are_tried_there(tmp_path):
    asked = []

    def elsewhere(work):
        work = pickle.loads(pickle.dumps(work))
        asked.append(work)
        there = Machine(16, ("H200", "H200"), 141.0, what="a node of the Ray cluster")
        return there if work is look_at_machine else StepCost(0.01, 2e9)

    synthesize_lgg(tmp_path / "kaggle_3m", patients=4, seed=0, size=64, slices=(10, 12))
    made = plan(open_cohort(tmp_path / "kaggle_3m"), minutes=1, there=elsewhere)
    assert len(asked) == 2
    assert made.experiment.training.gpus_per_worker == 1
    assert made.experiment.model.encoder == "resnet34"
    assert "2 x H200, 141 GB, on a node of the Ray cluster" in made.text
