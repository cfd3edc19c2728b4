"""The gate on a real store: what passes, what does not, what is remembered, and the way back."""

import json
import shutil
import threading

import numpy as np
import pytest
import torch

from bundles import changed
from glioflow import bundle
from glioflow.cluster.storage import prepared_home
from glioflow.config import home
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.splits import make_split
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.promotion import Verdict, decisions, gate, promote, rollback
from glioflow.promotion.record import champion_before
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.plan import Plan
from glioflow.runs.registry.register import register
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker
from glioflow.tracking import Tracking
from glioflow.tracking.run import begin_run
from prepared_copies import changeable_copy


@pytest.fixture(scope="session")
def quick(tiny):
    """Return an experiment that learns the tiny cohort in two seconds."""
    training = {
        **tiny.training.model_dump(mode="json"),
        **{"epochs": 5, "steps_per_epoch": 40, "batch_size": 8, "learning_rate": 4e-3},
        "sampling": {"augmentation": "none"},
    }
    model = {"architecture": "buda-unet", "options": {"features": [8, 16, 16]}}
    return changed(tiny, model=model, training=training)


@pytest.fixture(scope="session")
def trained(quick, prepared, tmp_path_factory):
    plan = Plan(
        experiment=quick,
        prepared=prepared.path,
        split=make_split(prepared.records, quick.split),
        run_id="none",
        tracking_uri="none",
        folder=tmp_path_factory.mktemp("trained"),
        created="2026-01-01T00:00:00+00:00",
    )
    train_plan(plan, Worker(lambda *_: None))
    return plan.bundle


@pytest.fixture(scope="session")
def untrained(trained, tmp_path_factory):
    """Return the same bundle with the weights of another network: random ones."""
    description = bundle.read_description(trained)
    torch.manual_seed(1)
    weights = build_network(description.model, in_channels=3, num_outputs=1).state_dict()
    folder = tmp_path_factory.mktemp("untrained") / "bundle"
    bundle.save(folder, description, weights)
    return folder


@pytest.fixture
def enter(tracking, quick, prepared):
    """Return a function that logs a run with this bundle and registers it."""

    def enter(folder, *, cohort=prepared, split=None, **sections):
        experiment = changed(quick, **sections)
        split = split or make_split(cohort.records, experiment.split)
        run_id = begin_run(tracking, opening_of(Setting(experiment, cohort, split, tracking), "train", "a training"))
        tracking.log_folder(run_id, folder, folder="bundle")
        tracking.finish(run_id)
        return register(run_id, name="glioma").version

    return enter


def stand(version=None, **fields):
    return promote("glioma", version=version, home=prepared_home(), **fields)


def champion():
    found = Tracking().champion("glioma")
    return found.version if found else None


def failed(verdict):
    return [reason.rule for reason in verdict.reasons if not reason.passed]


def test_a_trained_first_version_beats_the_baselines_and_becomes_champion(enter, trained):
    enter(trained)
    verdict = stand()
    assert (verdict.decision, verdict.version, verdict.previous, failed(verdict)) == ("promoted", 1, None, [])
    assert champion() == 1
    rules = " / ".join(reason.rule for reason in verdict.reasons)
    for rule in ("audit", "enough test patients", "all-empty baseline", "FLAIR threshold baseline"):
        assert rule in rules


def test_an_untrained_first_version_is_rejected_with_its_numbers(enter, untrained):
    enter(untrained)
    verdict = stand()
    assert verdict.decision == "rejected"
    assert any("baseline" in rule for rule in failed(verdict))
    assert all(
        reason.value <= reason.limit for reason in verdict.reasons if "baseline" in reason.rule and not reason.passed
    )
    assert champion() is None


def test_a_worse_challenger_leaves_the_champion_where_it_is(enter, trained, untrained):
    enter(trained)
    stand()
    enter(untrained)
    verdict = stand()
    assert (verdict.decision, verdict.version, verdict.previous) == ("rejected", 2, 1)
    assert any("not worse than the champion" in rule for rule in failed(verdict))
    assert champion() == 1


def test_an_equal_challenger_is_let_in(enter, trained):
    enter(trained)
    stand()
    enter(trained)
    verdict = stand()
    assert (verdict.decision, verdict.previous) == ("promoted", 1)
    assert champion() == 2


def test_too_few_test_patients_are_no_evidence_either_way(enter, trained):
    enter(trained, gate={"min_patients": 3})
    verdict = stand()
    assert verdict.decision == "insufficient-evidence"
    reason = next(reason for reason in verdict.reasons if not reason.passed)
    assert (reason.rule, reason.value, reason.limit) == ("enough test patients", 2, 3)
    assert champion() is None


def test_the_margin_and_the_false_positives_asked_for_are_held(enter, trained):
    enter(trained, gate={"min_patients": 2, "margin_over_baseline": 0.99, "max_false_positive_slice_rate": 1})
    verdict = stand()
    assert verdict.decision == "rejected"
    assert any(reason.rule == "false-positive slices" and reason.passed for reason in verdict.reasons)


def test_every_decision_is_recorded_newest_first_and_the_use_of_the_test_patients_counted(enter, trained, untrained):
    for folder in (untrained, trained, untrained):
        enter(folder)
        stand()
    found = decisions(Tracking(), "glioma")
    assert [(v.decision, v.version, v.times_test_used) for v in found] == [
        ("rejected", 3, 2),
        ("promoted", 2, 1),
        ("rejected", 1, 0),
    ]
    assert len({v.test for v in found}) == 1
    assert all(v.who and v.when for v in found)
    assert decisions(Tracking(), "another") == []


def test_the_champion_itself_is_not_put_before_the_gate(enter, trained):
    enter(trained)
    stand()
    with pytest.raises(UserError, match="version 1 of glioma is the champion already"):
        stand()


def test_an_older_version_can_be_asked_for(enter, trained, untrained):
    enter(trained)
    enter(untrained)
    assert stand(1).version == 1
    with pytest.raises(UserError, match="model 'glioma' has no version 9"):
        stand(9)
    with pytest.raises(UserError, match="no model 'other' is registered"):
        promote("other", home=prepared_home())


def test_another_cohort_than_the_recorded_one_is_refused(enter, trained, tiny, tmp_path):
    from glioflow.data.formats.detect import open_cohort
    from glioflow.data.synthetic.cohort import synthesize_lgg

    enter(trained)
    synthesize_lgg(tmp_path / "other", patients=8, seed=1, size=48, slices=(5, 7))
    other = prepare(open_cohort(tmp_path / "other"), tmp_path / "prepared", tiny.preprocess)
    for path in (tmp_path / "other", other.path):
        with pytest.raises(UserError, match="is not the cohort that version") as error:
            stand(data=path)
        assert other.manifest.source_fingerprint in str(error.value)
    assert decisions(Tracking(), "glioma") == []


def test_the_raw_cohort_does_as_well_as_the_recorded_prepared_one(enter, trained, lgg):
    enter(trained)
    assert stand(data=lgg).decision == "promoted"


def test_a_training_slice_that_is_tested_again_a_little_brighter_rejects(enter, trained, quick, prepared, tmp_path):
    cohort = PreparedCohort(changeable_copy(prepared.path, tmp_path / "copy"))
    split = make_split(cohort.records, quick.split)
    learned, tested = cohort.case(split.train[0]), cohort.case(split.test[0])
    pixels = np.load(tested.folder / "image.npy")
    pixels[2] = 1.1 * learned.image[2]
    np.save(tested.folder / "image.npy", pixels)
    enter(trained, cohort=cohort)
    verdict = stand()
    assert verdict.decision == "rejected"
    (reason,) = [reason for reason in verdict.reasons if reason.rule == "audit finds no image in two parts"]
    assert (reason.passed, reason.value, reason.limit) == (False, 1, 0)
    assert f"{learned.record.id} (train) slice 2, {tested.record.id} (test) slice 2" in reason.note
    assert champion() is None


def test_a_cohort_that_is_gone_is_asked_for(enter, trained, prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "copy")
    enter(trained, cohort=PreparedCohort(tmp_path / "copy"))
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(UserError, match="does not exist; give the cohort with data=DIR"):
        stand()


def test_another_split_than_the_one_trained_with_is_refused(enter, trained, prepared, quick):
    other = make_split(prepared.records, quick.split.model_copy(update={"seed": 5}))
    enter(trained, split=other)
    with pytest.raises(UserError, match="records another split than its bundle"):
        stand()


def test_a_bundle_changed_after_it_was_registered_is_refused(enter, trained, tracking):
    enter(trained)
    source = next((home() / "artifacts").rglob("registered/*/artifacts/bundle/model.json"))
    source.write_text(source.read_text() + "\n")
    with pytest.raises(UserError, match="must be the one that was registered"):
        stand()


def test_a_champion_of_another_preprocessing_sees_its_own(enter, trained, quick, lgg, tmp_path, monkeypatch):
    from glioflow.data.formats.detect import open_cohort

    enter(trained)
    stand()
    steps = [{"step": "unit"}, {"step": "resize", "size": 48}]
    other = changed(quick, preprocess=steps)
    cohort = prepare(open_cohort(lgg), tmp_path / "cohort", other.preprocess)
    description = bundle.read_description(trained).model_copy(update={"preprocess": other.preprocess})
    bundle.save(tmp_path / "bundle", description, bundle.load(trained).network.state_dict())
    enter(tmp_path / "bundle", cohort=cohort, preprocess=steps)
    with pytest.raises(UserError, match=r"another preprocessing.*give the raw cohort with data"):
        stand()
    seen = []
    measure = gate.measure_anew
    monkeypatch.setattr(
        gate, "measure_anew", lambda p, cases, **say: seen.append(cases[0].image.shape[1]) or measure(p, cases, **say)
    )
    said = []
    stand(data=lgg, say=lambda text, part=None: said.append(text))
    assert seen == [48, 32]
    assert [text for text in said if text.startswith("preparing")][-1] == "preparing the cohort: case 8 of 8"


def test_a_challenger_for_another_question_is_refused(enter, trained, tmp_path):
    enter(trained)
    stand()
    description = bundle.read_description(trained)
    target = description.target.model_copy(update={"kind": "regions", "regions": {"WT": (1,)}, "decode": {"WT": 1}})
    bundle.save(
        tmp_path / "bundle",
        description.model_copy(update={"target": target}),
        bundle.load(trained).network.state_dict(),
    )
    enter(tmp_path / "bundle")
    with pytest.raises(UserError, match="must have the champion's target"):
        stand()


def test_a_crash_between_record_and_alias_leaves_the_old_champion(enter, trained, monkeypatch):
    enter(trained)
    stand()
    enter(trained)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Tracking, "set_alias", crash)
        with pytest.raises(KeyboardInterrupt):
            stand()
    assert champion() == 1
    assert decisions(Tracking(), "glioma")[0].version == 2
    with pytest.raises(UserError, match="so there is nothing to roll back to"):
        rollback("glioma")
    assert stand().decision == "promoted"
    assert champion() == 2


def test_a_crash_while_a_decision_is_written_does_not_lock_the_registry(enter, trained, monkeypatch):
    enter(trained)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Tracking, "log_bytes", crash)
        with pytest.raises(KeyboardInterrupt):
            stand()
    (interrupted,) = Tracking().find_all("decisions", model="glioma")
    assert interrupted.info.status == "KILLED"
    assert decisions(Tracking(), "glioma") == []
    assert stand().decision == "promoted"


def test_a_rollback_brings_the_champion_before_back_and_is_recorded(enter, trained):
    for _ in range(3):
        enter(trained)
        stand()
    back = rollback("glioma")
    assert (back.decision, back.version, back.previous) == ("rolled-back", 2, 3)
    assert champion() == 2
    assert rollback("glioma").version == 1
    with pytest.raises(UserError, match="glioma had no champion before version 1"):
        rollback("glioma")
    assert [v.decision for v in decisions(Tracking(), "glioma")] == ["rolled-back"] * 2 + ["promoted"] * 3


def test_a_rollback_without_a_champion_says_so(enter, trained):
    with pytest.raises(UserError, match="no model 'glioma' is registered"):
        rollback("glioma")
    enter(trained)
    with pytest.raises(UserError, match="model 'glioma' has no champion"):
        rollback("glioma")


def record(*decisions):
    """Return verdicts, newest first, of ('promoted' | 'rolled-back' | 'rejected', version)."""
    made = [
        Verdict(
            decision=decision,
            reasons=(),
            name="glioma",
            version=version,
            previous=None,
            test="",
            times_test_used=0,
            who="x",
            when="x",
        )
        for decision, version in decisions
    ]
    return made[::-1]


UP, BACK, NO = "promoted", "rolled-back", "rejected"


@pytest.mark.parametrize(
    ("decisions", "present", "before"),
    [
        ([], 1, None),
        ([(UP, 1)], 1, None),
        ([(UP, 1), (NO, 2), (UP, 3)], 3, 1),
        ([(UP, 1), (UP, 2), (BACK, 1)], 1, None),
        ([(UP, 1), (UP, 2), (BACK, 1), (UP, 3)], 3, 1),
        ([(UP, 1), (UP, 2), (UP, 1)], 1, 2),  # an old version came again
        ([(UP, 1), (UP, 2), (UP, 1), (BACK, 2)], 2, 1),
        ([(UP, 1), (UP, 2), (UP, 1), (BACK, 2), (BACK, 1)], 1, None),  # and no going round in circles
        ([(UP, 1), (UP, 2), (BACK, 1)], 2, 1),  # died before the alias moved: the same again
        ([(UP, 1), (UP, 2)], 7, 2),  # somebody moved the alias by hand
    ],
)
def test_the_champion_before_is_read_from_the_record(decisions, present, before):
    assert champion_before(record(*decisions), present) == before


def test_of_two_promotions_at_once_the_second_is_told(enter, trained, monkeypatch):
    enter(trained)
    enter(trained)
    begun, go_on, verdicts = threading.Event(), threading.Event(), []
    judge = gate._apply_rules

    def slow(*args):
        begun.set()
        assert go_on.wait(60)
        return judge(*args)

    monkeypatch.setattr(gate, "_apply_rules", slow)
    first = threading.Thread(target=lambda: verdicts.append(stand(1)))
    first.start()
    assert begun.wait(60)
    try:
        for other in (lambda: stand(2), lambda: rollback("glioma")):
            with pytest.raises(UserError, match="another promotion or rollback of glioma is run by process"):
                other()
    finally:
        go_on.set()
        first.join()
    assert verdicts[0].decision == "promoted"
    assert champion() == 1
    assert len(decisions(Tracking(), "glioma")) == 1


def test_a_champion_that_another_machine_moved_meanwhile_is_noticed(enter, trained, tracking, monkeypatch):
    enter(trained)
    enter(trained)
    judge = gate._apply_rules

    def overtaken(*args):
        reasons = judge(*args)
        tracking.set_alias("glioma", "champion", 1)
        return reasons

    monkeypatch.setattr(gate, "_apply_rules", overtaken)
    with pytest.raises(UserError, match=r"champion of glioma changed.*got version 1; promote again"):
        stand(2)
    assert champion() == 1
    assert decisions(Tracking(), "glioma") == []


def test_a_version_that_glioflow_did_not_register_is_refused(enter, trained, tracking):
    enter(trained)
    known = tracking.version("glioma", number=1)
    tracking.client.create_model_version("glioma", known.source, known.run_id)
    with pytest.raises(UserError, match=r"has no version 2; choose one of: .*glioma/1"):
        stand(2)


def test_a_challenger_is_named_so_until_it_is_champion(enter, trained, untrained, tracking):
    enter(trained)
    assert tracking.version("glioma", alias="challenger").version == 1
    stand()
    assert tracking.version("glioma", number=1).aliases == ("champion",)
    enter(untrained)
    stand()
    assert tracking.version("glioma", number=2).aliases == ("challenger",)


def test_a_version_that_answers_otherwise_than_when_it_was_registered_is_rejected(enter, trained):
    enter(trained)
    golden = next((home() / "artifacts").rglob("registered/*/golden.json"))
    answer = json.loads(golden.read_text())
    golden.write_text(json.dumps(answer | {"tumor_voxels": answer["tumor_voxels"] + 5000}))
    verdict = stand()
    assert verdict.decision == "rejected"
    assert failed(verdict) == ["the golden study is answered as at registration (largest relative difference)"]


def test_each_rule_gives_its_number_and_a_small_experiment_is_told_so(enter, trained):
    enter(trained)
    stand()
    enter(trained)
    verdict = stand()
    numbers = {reason.rule.split(" (")[0]: reason for reason in verdict.reasons}
    asked = {
        "audit finds no patient in two parts": 0,
        "audit finds no image in two parts": 0,
        "enough test patients": 2,
        "times that these test patients judged before": 1,
        "the golden study is answered as at registration": 0,
        "the champion never trained on these test patients": 0,
        "not worse than the champion": 0,
    }
    assert {rule: numbers[rule].value for rule in asked} == asked
    assert numbers["enough test patients"].note == "this experiment asks for few: 10 are usual"
    for rule in ("calibration error near the tumor", "median seconds for a study"):
        assert 0 < float(numbers[rule].value) < float(numbers[rule].limit)


def test_a_limit_that_is_not_held_rejects(enter, trained):
    enter(trained, gate={"min_patients": 2, "max_latency_s": 1e-6, "max_calibration_error": 0})
    assert failed(stand()) == ["calibration error near the tumor", "median seconds for a study"]


def test_test_patients_that_judged_as_often_as_the_experiment_allows_promote_nothing_more(enter, trained):
    limited = {"min_patients": 2, "max_test_uses": 0}
    enter(trained, gate=limited)
    assert stand().decision == "promoted"
    enter(trained, gate=limited)
    verdict = stand()
    assert failed(verdict) == ["times that these test patients judged before"]
    assert (verdict.decision, verdict.times_test_used) == ("rejected", 1)
