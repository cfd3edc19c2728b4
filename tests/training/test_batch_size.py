"""`training.batch_size: auto`: the largest batch that fits, found by trying, and then the same to the end."""

import math

import pytest
import torch
from torch import nn

from bundles import changed
from glioflow.errors import RunFailed, UserError
from glioflow.models import LossSettings, ModelSettings, build_loss, build_network
from glioflow.training.batch_size import GPU_PART, find_batch_size, largest_that_fits, memory_for_step
from glioflow.training.fitting import build_and_fit
from glioflow.training.settings import TrainingSettings

MIB = 2**20


@pytest.fixture
def cases(prepared):
    return prepared.cases([record.id for record in prepared.records])


def settings(**changes):
    chosen = {"batch_size": "auto", "epochs": 1, "steps_per_epoch": 2, "precision": "fp32", "learning_rate": 1e-3}
    return TrainingSettings(**(chosen | changes))


def find(cases, tiny, **options):
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 1))  # 1/4 MiB a slice of 32 px
    loss = build_loss(LossSettings(name="dice_bce"), task="binary")
    return find_batch_size(network, loss, tiny.target, settings(), cases, storage="disk", **options)


@pytest.mark.parametrize(
    ("room", "size", "tried"),
    [
        (1000, 8, [2, 4, 8]),  # 16 would take 1,610, as is known from 4 and 8
        (430, 4, [2, 4]),
        (10**6, 64, [2, 4, 8, 16, 32, 64]),
        (209, 0, [2]),
    ],
)
def test_sizes_grow_as_long_as_the_next_one_will_fit(room, size, tried):
    sizes = []

    def measured(number):
        sizes.append(number)
        return 10 + 100 * number

    assert largest_that_fits(measured, room, most=64)[0] == size
    assert sizes == tried


def test_a_step_that_finds_no_memory_ends_the_search():
    size, reason = largest_that_fits(lambda number: math.inf if number > 4 else 10.0, 2**30, most=64)
    assert size == 4
    assert reason == "a step of 8 takes more than the memory, and 1 GiB are for it"


def test_more_memory_gives_a_larger_batch_up_to_a_limit(cases, tiny, caplog):
    caplog.set_level("INFO")
    assert [find(cases * 8, tiny, available=room * MIB) for room in (1, 2, 4, 10**6)] == [2, 4, 8, 16]
    assert "batch of 16 for each of 1 workers: the limit is 16; its step takes" in caplog.text
    with pytest.raises(RunFailed, match=r"auto has no room for 2 samples: a step of 2 takes .* GiB, and .* are for it"):
        find(cases, tiny, available=MIB // 2)


def test_the_part_of_the_machine_that_a_worker_has_counts(cases, tiny, monkeypatch):
    monkeypatch.setattr("glioflow.training.batch_size.free_memory", lambda: 6 * MIB)  # half of it is taken
    assert [find(cases * 8, tiny, cpu_share=share) for share in (1.0, 0.5)] == [8, 4]


@pytest.mark.parametrize(("free", "share", "usable"), [(80, 1.0, 80), (80, 0.25, 20), (30, 1.0, 30), (10, 0.25, 10)])
def test_a_step_gets_no_memory_of_a_gpu_that_others_use(monkeypatch, free, share, usable):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * 2**30, 80 * 2**30))
    found = memory_for_step(torch.device("cuda"), resident=2**30, gpu_share=share, cpu_share=1.0)
    assert found == pytest.approx((GPU_PART * usable - 1) * 2**30)


def test_a_batch_still_fits_when_the_encoder_is_unfrozen(cases, tiny):
    loss = build_loss(LossSettings(name="dice_bce"), task="binary")

    def found(freeze, **changes):
        options = {"head_channels": 8, "head_kernel": 1}
        chosen = ModelSettings(architecture="fcn32", encoder="mobilenet_v2", freeze=freeze, options=options)
        network = build_network(chosen, in_channels=3, num_outputs=1)
        began = {name: each.requires_grad for name, each in network.named_parameters()}
        room, given = 60 * MIB, (tiny.target, settings(**changes), cases * 8)
        size = find_batch_size(network, loss, *given, storage="disk", available=room)
        assert began == {name: each.requires_grad for name, each in network.named_parameters()}
        return size

    assert found("encoder", unfreeze_epoch=1) == found("none") < found("encoder")


def test_a_batch_holds_at_most_a_twentieth_of_the_cohort(cases, tiny, caplog):
    caplog.set_level("INFO")
    num_slices = sum(case.record.prepared_shape[0] for case in cases)
    found = find(cases, tiny, available=2**40)
    assert found <= max(2, num_slices / 20) < 2 * found
    assert "5% of the cohort" in caplog.text


def train(cases, tiny, folder, chosen, *, resume=None):
    reports = []

    def report(epoch, metrics, write_checkpoint):
        reports.append(metrics)
        folder.mkdir(exist_ok=True)
        write_checkpoint(folder)

    _, fitted = build_and_fit(
        ModelSettings(architecture="fcn32", encoder="mobilenet_v2", options={"head_channels": 8, "head_kernel": 1}),
        LossSettings(name="dice_bce"),
        tiny.target,
        chosen,
        cases,
        lambda _: {"val/dice": 0.5},
        report,
        resume=resume,
    )
    return reports, fitted


def test_a_training_ends_as_one_with_the_number_that_was_found_and_is_resumed_with_it(
    cases, tiny, tmp_path, monkeypatch
):
    reported, fitted = train(cases, tiny, tmp_path / "auto", settings())
    size = reported[0]["train/batch_size"]
    _, given = train(cases, tiny, tmp_path / "given", settings(batch_size=int(size)))
    assert all(torch.equal(fitted.weights[name], value) for name, value in given.weights.items())

    whole, kept = train(cases, tiny, tmp_path / "whole", settings(epochs=2))
    # Another device with other memory: nothing is tried there.
    monkeypatch.setattr("glioflow.training.fitting.find_batch_size", lambda *_, **__: pytest.fail("it was tried again"))
    again, resumed = train(cases, tiny, tmp_path / "again", settings(epochs=2), resume=tmp_path / "whole")
    assert again == []  # all epochs were done
    assert whole[-1]["train/batch_size"] == size
    assert all(torch.equal(kept.weights[name], value) for name, value in resumed.weights.items())


def test_combinations_that_cannot_be_say_why(tiny):
    with pytest.raises(UserError, match=r"accumulate must be 1 if batch_size is auto.*in one piece; got 2"):
        changed(tiny, training={"batch_size": "auto", "accumulate": 2})
    with pytest.raises(UserError, match=r"one number if batch_size is auto.*got \[1, 2\]"):
        changed(tiny, training={"batch_size": "auto", "num_workers": [1, 2]})
