"""Which version answers: switches in one step, refuses what does not load, and lets a challenger try."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from in_process import served, version

from bundles import Bright, describe
from glioflow import bundle
from glioflow.data.formats.detect import open_cohort
from glioflow.errors import RunFailed, UserError
from glioflow.models import build_network
from glioflow.promotion.golden import golden_answer
from glioflow.serving.engine.answering import Answering, Reply
from glioflow.serving.engine.batching import BatchedPredictor, Batcher
from glioflow.serving.engine.selection import choose_engine
from glioflow.serving.settings import Trial
from glioflow.serving.versions.loaded import Versions, Wanted, find_wanted, load_version
from glioflow.serving.versions.shadow_trial import Comparison, Watch, agreement


@pytest.fixture
def case(lgg):
    cohort = open_cohort(lgg)
    return cohort.read(cohort.cases[0].id)


class Shelf:
    """Versions to load by number; those whose number is not there fail to load."""

    def __init__(self, tiny, *numbers, **networks):
        self.events, self.loads = [], []
        self.kept = {number: served(tiny, number, networks.get(f"v{number}")) for number in numbers}
        for each in self.kept.values():
            each.predictor.batcher = Batcher(2**18)
        self.versions = Versions(Batcher(2**18), self.say, load=self.load)

    def load(self, wanted, batcher):
        self.loads.append(wanted.version)
        if wanted.version not in self.kept:
            raise UserError("a version must load", "/secret/place")
        return self.kept[wanted.version]

    def say(self, event, **facts):
        self.events.append((event, facts.get("version")))

    def adopt(self, number, before=None, **more):
        self.versions.adopt(Wanted(champion=version(number), before=before and version(before), **more))
        return self.versions.champion.id.version


def test_a_new_champion_takes_over_and_is_announced(tiny):
    shelf = Shelf(tiny, 1, 2)
    assert [shelf.adopt(1), shelf.adopt(2, before=1)] == [1, 2]
    assert shelf.events == [("switched", 1), ("switched", 2)]


def test_a_version_that_does_not_load_is_refused_aloud_and_the_old_one_stays(tiny):
    shelf = Shelf(tiny, 1)
    shelf.adopt(1)
    assert shelf.adopt(5, before=1) == 1
    assert ("refused", 5) in shelf.events
    refused = shelf.versions.state()["refused"]
    assert refused == {"glioma/5": "a version must load"}
    assert "secret" not in json.dumps(refused)


def test_a_fresh_replica_told_of_a_bad_champion_answers_with_the_one_before(tiny):
    shelf = Shelf(tiny, 1)
    assert shelf.adopt(5, before=1) == 1
    assert shelf.events == [("refused", 5), ("switched", 1)]


def test_without_any_version_that_loads_a_replica_does_not_start(tiny):
    with pytest.raises(RunFailed, match="no version could be loaded"):
        Shelf(tiny).adopt(5, before=4)


def test_the_same_champion_is_not_loaded_twice(tiny):
    shelf = Shelf(tiny, 1)
    shelf.adopt(1)
    shelf.adopt(1)
    assert shelf.loads == [1]


def test_who_began_with_the_old_version_ends_with_it(tiny, case):
    entered, go = threading.Event(), threading.Event()

    class Waiting(Bright):
        def forward(self, images):
            entered.set()
            go.wait(10)
            return super().forward(images)

    shelf = Shelf(tiny, 1, 2, v1=Waiting(above=2), v2=Bright(above=-1))
    answering = Answering(shelf.versions, Batcher(2**18), shelf.say)
    shelf.adopt(1)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(answering.answer(case, {})))
    thread.start()
    assert entered.wait(10)
    shelf.adopt(2, before=1)
    after = answering.answer(case, {})
    go.set()
    thread.join(10)
    assert after.answer["model"]["version"] == 2
    assert after.answer["tumor"]["detected"]
    assert replies[0].answer["model"]["version"] == 1
    assert not replies[0].answer["tumor"]["detected"], "network and name are of one version"


@pytest.mark.parametrize("probability", [False, True], ids=["as programs ask", "as the page asks"])
def test_the_canary_share_is_answered_by_the_challenger_and_says_so(tiny, case, probability):
    shelf = Shelf(tiny, 1, 2)
    shelf.adopt(1, challenger=version(2), trial=Trial(canary=0.5))
    answering = Answering(shelf.versions, Batcher(2**18), shelf.say)
    replies = [answering.answer(case, {}, probability=probability) for _ in range(16)]
    assert 2 < [reply.answer["model"]["version"] for reply in replies].count(2) < 14
    assert all((reply.probability is not None) == probability for reply in replies)


def wait_for(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_challenger_that_breaks_is_replaced_by_the_champion_and_steps_back(tiny, case):
    class Broken(Bright):
        def forward(self, images):
            raise RuntimeError("out of memory")

    shelf = Shelf(tiny, 1, 2, v2=Broken())
    shelf.adopt(1, challenger=version(2), trial=Trial(canary=1.0, max_errors=2))
    answering = Answering(shelf.versions, Batcher(2**18), shelf.say)
    replies = [answering.answer(case, {}) for _ in range(6)]
    assert all(isinstance(reply, Reply) and reply.answer["model"]["version"] == 1 for reply in replies)
    assert "3 failures" in answering.card()["serving"]["stepped_back"]
    assert ("stepped_back", None) in shelf.events


def test_a_study_that_a_challenger_refuses_is_the_champions(tiny, case):
    class Refusing(Bright):
        def forward(self, images):
            raise UserError("a rule of the challenger")

    shelf = Shelf(tiny, 1, 2, v2=Refusing())
    shelf.adopt(1, challenger=version(2), trial=Trial(canary=1.0, max_errors=1))
    answering = Answering(shelf.versions, Batcher(2**18), shelf.say)
    assert [answering.answer(case, {}).answer["model"]["version"] for _ in range(3)] == [1, 1, 1]
    assert "2 failures" in answering.card()["serving"]["stepped_back"]
    blank = replace(case, channels=("a", "b", "c"))
    assert isinstance(answering.answer(blank, {}), UserError), "what both refuse is the user's mistake"


def test_a_challenger_that_disagrees_steps_back_and_the_shadow_is_logged(tiny, case):
    shelf = Shelf(tiny, 1, 2, v1=Bright(above=0.3), v2=Bright(above=2))
    shelf.adopt(1, challenger=version(2), trial=Trial(shadow=1.0, window=3))
    answering = Answering(shelf.versions, Batcher(2**18), shelf.say)
    written = []
    answering.diary.write = lambda *args: written.append(args)
    for count in range(1, 4):
        assert answering.answer(case, {}).answer["model"]["version"] == 1
        wait_for(lambda count=count: len(written) == count)
    assert written[0][:2] == ("glioma/1", "glioma/2")
    assert set(written[0][2]) == {"dice", "champion_ms", "challenger_ms"}
    assert written[0][2]["dice"] == 0
    assert "mean Dice 0.000" in answering.card()["serving"]["stepped_back"]
    answering.answer(case, {})
    assert len(written) == 3, "who stepped back gets no more traffic"


def test_a_watch_waits_for_a_whole_window_before_it_judges():
    lines = []
    watch = Watch("a/1", "a/2", Trial(canary=0.5, window=3, min_dice=0.8), lambda *a, **k: lines.append(k))
    for dice in (0.1, 0.1):
        watch.compared(Comparison(dice, 1, 1))
        assert watch.goes_to(0.2, 0.5)
    watch.compared(Comparison(0.1, 1, 1))
    assert not watch.goes_to(0.2, 0.5)
    assert lines[0]["challenger"] == "a/2"


def test_agreement_is_dice_and_one_for_two_empty_masks():
    empty, one = np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), np.uint8)
    assert (agreement(empty, empty), agreement(one, empty), agreement(one, one)) == (1, 0, 1)


def test_the_disagreement_of_a_shadow_is_a_run_in_mlflow(tracking):
    from glioflow.serving.versions.shadow_trial import EXPERIMENT, Diary

    diary = Diary()
    for dice in (0.5, 0.7):
        diary.write("glioma/1", "glioma/2", {"dice": dice})

    def history():
        run = tracking.find(EXPERIMENT, champion="glioma/1", challenger="glioma/2")
        return tracking.metric_history(run.info.run_id, "dice") if run else []

    wait_for(lambda: history() == [0.5, 0.7])
    diary.write("glioma/1", "glioma/3", {"dice": 0.9})
    wait_for(lambda: status_of_shadow(tracking, "glioma/2") == "FINISHED")
    diary.end()
    wait_for(lambda: status_of_shadow(tracking, "glioma/3") == "FINISHED")
    diary.write("glioma/1", "glioma/4", {"dice": 0.9})
    diary.close()
    run = tracking.find(EXPERIMENT, challenger="glioma/4")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"dice": 0.9})
    assert {"glioflow.source", "glioflow.version"} <= run.data.tags.keys()
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, json.loads(data.dataset.source)["uri"]) == ("live studies", "endpoint of glioma")
    assert json.loads(data.dataset.profile) == {"champion": "glioma/1", "challenger": "glioma/4"}


def status_of_shadow(tracking, challenger):
    run = tracking.find("shadow", challenger=challenger)
    return run and run.info.status


@pytest.fixture
def network(tiny):
    return build_network(tiny.model, in_channels=3, num_outputs=1)


def write(folder, tiny, network):
    bundle.save(folder, describe(tiny), network.state_dict())
    return folder


def test_a_registered_version_is_loaded_checked_and_put_into_its_fastest_way(tiny, network, tracking, tmp_path):
    folder = write(tmp_path / "b", tiny, network)
    run = tracking.start("x", "x", tags={})
    documents = {"golden.json": json.dumps(golden_answer(BatchedPredictor(describe(tiny), network)))}
    made = tracking.register("glioma", run, folder, tags={}, documents=documents)
    tracking.set_alias("glioma", "champion", made.version)
    wanted = find_wanted(None, Trial())
    assert wanted.champion.golden is not None
    loaded = load_version(wanted.champion, Batcher(2**18))
    assert loaded.predictor.batcher is not None
    assert loaded.engine.dice_to_fp32 >= 0.995
    other = wanted.champion.model_copy(update={"digest": "0" * 32})
    with pytest.raises(UserError, match="must be the one that was registered"):
        load_version(other, Batcher(2**18))


def test_champion_challenger_and_shadow_run_their_networks_in_one_thread(tiny, network, tracking, tmp_path, case):
    for number in (1, 2):
        folder = write(tmp_path / f"b{number}", tiny, network)
        tracking.register("glioma", tracking.start("x", "x", tags={}), folder, tags={})
    tracking.set_alias("glioma", "champion", 1)
    tracking.set_alias("glioma", "challenger", 2)
    batcher = Batcher(2**18)
    versions = Versions(batcher, lambda *args, **facts: None)
    versions.adopt(find_wanted(None, Trial(canary=0.5, shadow=1.0, max_errors=99, min_dice=0.0)))
    threads = {1: set(), 2: set()}
    for number, loaded in ((1, versions.champion), (2, versions.challenger)):
        loaded.predictor.network.register_forward_hook(
            lambda *_, number=number: threads[number].add(threading.current_thread())
        )
    answering = Answering(versions, batcher, lambda *args, **facts: None)
    wait_for(lambda: answering.answer(case, {}) and threads[1] and threads[2])
    assert threads[1] == threads[2] == {batcher._thread}, "a second team of OpenMP threads halves the speed of both"


def test_a_version_that_answers_the_golden_study_otherwise_or_badly_is_refused(tiny, network):
    import torch

    predictor = BatchedPredictor(describe(tiny), network.eval())
    recorded = golden_answer(predictor)
    choose_engine(predictor, recorded)
    with pytest.raises(UserError, match="as when it was registered"):
        choose_engine(predictor, {**recorded, "mean_probability": recorded["mean_probability"] + 0.3})
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="finite probabilities"):
        choose_engine(BatchedPredictor(describe(tiny), network))
