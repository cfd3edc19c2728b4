"""The training loop alone: no Ray, no MLflow, no files but its checkpoint."""

import copy
import gc
import sys
import time
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from glioflow.errors import RunFailed, UserError
from glioflow.evaluation.inference import resolve_precision
from glioflow.models import ModelSettings, build_network
from glioflow.models.network import Network
from glioflow.training.checkpoints import CHECKPOINT
from glioflow.training.compiling import compiles
from glioflow.training.loop import fit
from glioflow.training.settings import TrainingSettings


class Batches:
    """Slices whose bright half is tumor; a batch is a function of its step."""

    steps_per_pass = 4

    def __init__(self, size=4):
        self.size, self.seen = size, []

    def steps(self, first, last):
        for step in range(first, last):
            self.seen.append(step)
            images = torch.rand(self.size, 2, 8, 8, generator=torch.Generator().manual_seed(step))
            yield images, (images[:, :1] > 0.5).float()


def network(seed=0, *, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 1, 1)
    )


SMALL_HEAD = {"head_channels": 8, "head_kernel": 1}


def settings(**changes):
    return TrainingSettings(**({"epochs": 4, "learning_rate": 1e-2, "precision": "fp32"} | changes))


def run(net, chosen, *, dices=None, batches=None, resume=None, report=None, loss=None, keep=None, announced=None):
    reported = iter(dices if dices is not None else [k / 100 for k in range(100)])
    return fit(
        net,
        loss or nn.BCEWithLogitsLoss(),
        batches or Batches(),
        lambda _: {"val/dice": next(reported)},
        chosen,
        report or (lambda *_: None),
        resume=resume,
        keep=keep,
        announced=announced,
    )


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def close(left, right, tolerance):
    return all(torch.allclose(left[name].float(), right[name].float(), atol=tolerance) for name in left)


class Killed(Exception):  # noqa: N818
    """The process is gone."""


def killed_after(epoch, folder):
    def report(number, metrics, write_checkpoint):
        if number == epoch:
            write_checkpoint(folder)
            raise Killed

    return report


def test_a_trivial_task_is_learned():
    losses = []
    run(network(), settings(epochs=12), report=lambda _, metrics, __: losses.append(metrics["train/loss"]))
    assert losses[-1] < 0.35 < 0.5 < losses[0]


@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"optimizer": "sgd"}, {"optimizer": "adam", "keep": "last"}, {"channels_last": False}],
    ids=str,
)
def test_a_killed_and_resumed_training_ends_with_the_same_bits(tmp_path, killed, changes):
    chosen, dices = settings(**changes), [0.3, 0.5, 0.4, 0.2]
    whole_net = network(dropout=0.5)
    whole = run(whole_net, chosen, dices=dices)
    with pytest.raises(Killed):
        run(network(dropout=0.5), chosen, dices=dices, report=killed_after(killed, tmp_path))
    torch.rand(7)  # the new process is at another place of the random numbers
    again_net = network(seed=5, dropout=0.5)
    batches = Batches()
    again = run(again_net, chosen, dices=dices[killed + 1 :], batches=batches, resume=tmp_path)
    assert batches.seen == list(range(4 * (killed + 1), 16))
    assert equal(whole.weights, again.weights)
    assert equal(whole_net.state_dict(), again_net.state_dict())
    assert (whole.epoch, whole.dice) == (again.epoch, again.dice)


class Kept:
    """Copies of the checkpoints within epochs, written when the training has gone on."""

    def __init__(self):
        self.copies = []

    def __call__(self, checkpoint):
        self.copies.append(checkpoint.copied())


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"optimizer": "sgd", "keep": "last"}], ids=str)
@pytest.mark.parametrize("written", [0, 2, 4])
def test_a_training_killed_within_an_epoch_and_resumed_ends_with_the_same_bits(tmp_path, changes, written):
    chosen, dices, losses = settings(epochs=2, checkpoint_minutes=1e-9, **changes), [0.3, 0.5], []

    def listen(_, metrics, __):
        losses.append(metrics["train/loss"])

    kept, whole_net = Kept(), network(dropout=0.5)
    whole = run(whole_net, chosen, dices=dices, keep=kept, report=listen)
    assert [copy.state["begun"]["steps"] for copy in kept.copies] == [1, 2, 3, 1, 2, 3]
    kept.copies[written](tmp_path)  # by now the network has other weights
    torch.rand(7)
    again_net, batches = network(seed=5, dropout=0.5), Batches()
    epoch = written // 3
    again = run(again_net, chosen, dices=dices[epoch:], batches=batches, resume=tmp_path, report=listen)
    assert batches.seen == list(range(4 * epoch + written % 3 + 1, 8))
    assert losses[2:] == losses[epoch:2]
    assert equal(whole.weights, again.weights)
    assert equal(whole_net.state_dict(), again_net.state_dict())


def test_where_the_end_of_a_machine_is_announced_a_checkpoint_is_written_at_once():
    kept, asked = Kept(), []

    def announced():
        asked.append(None)
        return len(asked) == 1

    run(network(), settings(epochs=1, checkpoint_minutes=10.0), keep=kept, announced=announced)
    assert [copy.state["begun"]["steps"] for copy in kept.copies] == [1]


def test_checkpoints_within_epochs_change_nothing_and_may_be_left_out():
    plain, kept = network(dropout=0.5), Kept()
    run(plain, settings(checkpoint_minutes=None), keep=kept)
    assert kept.copies == []
    often = network(dropout=0.5)
    run(often, settings(checkpoint_minutes=1e-9), keep=kept)
    assert len(kept.copies) == 12
    assert equal(plain.state_dict(), often.state_dict())


def test_a_copy_of_a_checkpoint_is_what_was_there_when_it_was_made(tmp_path):
    copies = []

    def report(epoch, _, write_checkpoint):
        copies.append(write_checkpoint.copied())
        (tmp_path / str(epoch)).mkdir()
        write_checkpoint(tmp_path / str(epoch))

    run(network(), settings(epochs=3, ema=0.9), report=report, dices=[0.1, 0.9, 0.2])
    for epoch, write in enumerate(copies):
        (tmp_path / f"copy-{epoch}").mkdir()
        write(tmp_path / f"copy-{epoch}")
        at_once, later = (torch.load(tmp_path / f"{kind}{epoch}" / CHECKPOINT) for kind in ("", "copy-"))
        for part in ("network", "average"):
            assert equal(at_once[part], later[part])
        assert equal(at_once["progress"].pop("kept"), later["progress"].pop("kept"))
        assert at_once["progress"] == later["progress"]


ALL_AT_ONCE = {
    "ema": 0.9,
    "accumulate": 2,
    "warmup_steps": 3,
    "clip_gradient": 1.0,
    "patience": 3,
    "unfreeze_epoch": 2,
    "deterministic": True,
}


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_resuming_across_the_unfreezing_with_all_else_at_once_gives_the_same_bits(tmp_path, killed):
    def fresh(seed):
        torch.manual_seed(seed)
        chosen = ModelSettings(architecture="fcn32", encoder="mobilenet_v2", freeze="encoder", options=SMALL_HEAD)
        return build_network(chosen, in_channels=2, num_outputs=1)

    chosen, dices = settings(epochs=9, steps_per_epoch=2, keep="last", **ALL_AT_ONCE), [0.3, 0.5, 0.4, 0.2, 0.1]
    whole = run(fresh(0), chosen, dices=dices)
    assert whole.epoch == 4  # three epochs without a better Dice
    with pytest.raises(Killed):
        run(fresh(0), chosen, dices=dices, report=killed_after(killed, tmp_path))
    again = run(fresh(5), chosen, dices=dices[killed + 1 :], resume=tmp_path)
    assert whole.epoch == again.epoch
    assert equal(whole.weights, again.weights)


def test_the_scale_of_half_precision_is_resumed(tmp_path):
    def loss(logits, truth):
        return 4e3 * nn.functional.binary_cross_entropy_with_logits(logits, truth)

    chosen = settings(precision="fp16", optimizer="sgd", learning_rate=1e-6)
    whole = run(network(), chosen, loss=loss)
    with pytest.raises(Killed):
        run(network(), chosen, loss=loss, report=killed_after(1, tmp_path))
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["scaler"]["scale"] < 2**16  # it had overflown
    assert equal(whole.weights, run(network(5), chosen, loss=loss, resume=tmp_path, dices=[0.3, 0.4]).weights)


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_a_training_goes_on_where_the_device_computes_in_another_precision(tmp_path, before, after):
    with pytest.raises(Killed):
        run(network(), settings(precision=before), report=killed_after(1, tmp_path))
    losses = []
    again = settings(precision=after)
    run(network(5), again, resume=tmp_path, report=lambda _, metrics, __: losses.append(metrics["train/loss"]))
    assert len(losses) == 2


def test_an_encoder_learns_from_the_epoch_of_its_unfreezing():
    net = build_network(
        ModelSettings(architecture="fcn32", encoder="mobilenet_v2", freeze="encoder", options=SMALL_HEAD),
        in_channels=2,
        num_outputs=1,
    )
    states = [copy.deepcopy(net.body.encoder.state_dict())]
    run(
        net,
        settings(epochs=3, steps_per_epoch=1, unfreeze_epoch=2, weight_decay=0.1),
        report=lambda *_: states.append(copy.deepcopy(net.body.encoder.state_dict())),
    )
    assert equal(states[0], states[2])
    moved = {name for name in states[0] if not torch.equal(states[2][name], states[3][name])}
    assert {"features.0.0.weight", "features.0.1.running_mean"} <= moved


def test_an_epoch_of_unfreezing_means_nothing_where_nothing_is_frozen():
    plain, reported = network(), network()
    run(plain, settings())
    run(reported, settings(unfreeze_epoch=1))
    assert equal(plain.state_dict(), reported.state_dict())


def test_compiling_without_a_compiler_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"training\.compile needs a C\+\+ compiler .*no-such-compiler"):
        run(network(), settings(compile=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compile", "compiler", "on_gpu", "steps", "expected"),
    [
        (False, True, True, 10**6, (False, "asked for")),
        ("auto", True, False, 10**6, (False, "no GPU")),
        ("auto", True, True, 300, (False, "300 steps are fewer than 20000")),
        ("auto", False, True, 10**6, (False, "no C++ compiler nowhere-c++")),
        ("auto", True, True, 10**6, (True, "1000000 steps")),
    ],
)
def test_whether_a_training_is_compiled_has_a_reason(monkeypatch, compile, compiler, on_gpu, steps, expected):
    monkeypatch.setenv("CXX", sys.executable if compiler else "nowhere-c++")  # any program on the path
    assert compiles(settings(compile=compile), on_gpu=on_gpu, num_steps=steps) == expected


def test_what_was_chosen_and_why_is_told_once_and_again_where_it_changes():
    told = []
    fit(
        network(),
        nn.BCEWithLogitsLoss(),
        Batches(),
        lambda _: {"val/dice": 0.5},
        settings(),
        lambda epoch, *_: told.append(epoch),
        decided=told.append,
    )
    choices = {"compile": "false: asked for", "cuda_graphs": "false: no GPU"}
    assert told == [choices, 0, 1, 2, 3]


def test_a_compiled_training_goes_as_one_that_is_not():
    plain, compiled = network(), network()
    run(plain, settings(optimizer="sgd"))
    run(compiled, settings(optimizer="sgd", compile=True))
    assert close(plain.state_dict(), compiled.state_dict(), 1e-4)


def test_a_process_compiles_every_network_that_it_trains(monkeypatch):
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with torch._dynamo.config.patch(recompile_limit=2):
        for depth in range(1, 5):
            body = nn.Sequential(*[nn.Conv2d(2, 2, 1) for _ in range(depth)], nn.Conv2d(2, 1, 1))
            net = Network(body, multiple=1, in_channels=2, scaling=None)
            run(net, settings(epochs=1, compile=True))
            assert len(compiled) == depth


@pytest.mark.parametrize(("dims", "name"), [(2, "train/slices_per_s"), (3, "train/patches_per_s")])
def test_speed_is_told_in_what_a_batch_is_made_of(dims, name):
    class Blocks(Batches):
        def steps(self, first, last):
            for _ in range(first, last):
                images = torch.rand(4, 2, *(4,) * dims)
                yield images, images[:, :1].round()

    reports = []
    net = (nn.Conv2d if dims == 2 else nn.Conv3d)(2, 1, 1)
    run(net, settings(epochs=1), batches=Blocks(), report=lambda _, metrics, __: reports.append(metrics))
    assert reports[0][name] > 0


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_values(tmp_path):
    with pytest.raises(Killed):
        run(network(), settings(ema=0.5), report=killed_after(1, tmp_path))
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["progress"]["epoch"] == 2


def test_the_best_weights_are_kept_or_the_last_as_asked():
    states = {}

    def remember(net):
        return lambda epoch, *_: states.update({epoch: copy.deepcopy(net.state_dict())})

    net = network()
    best = run(net, settings(), dices=[0.2, 0.6, 0.6, 0.1], report=remember(net))
    assert (best.epoch, best.dice) == (1, 0.6)
    assert equal(best.weights, states[1])
    net = network()
    last = run(net, settings(keep="last"), dices=[0.2, 0.6, 0.6, 0.1], report=remember(net))
    assert (last.epoch, last.dice) == (3, 0.1)
    assert equal(last.weights, states[3])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_training_stops_after_as_many_epochs_without_a_better_dice(keep):
    heard = []
    fitted = run(
        network(),
        settings(epochs=9, patience=2, keep=keep),
        dices=[0.1, 0.5, 0.4, 0.5, 0.9],
        report=lambda epoch, *_: heard.append(epoch),
    )
    assert heard == [0, 1, 2, 3]
    assert fitted.epoch == (1 if keep == "best" else 3)


def test_a_training_killed_when_its_patience_ended_does_not_go_on(tmp_path):
    chosen = settings(epochs=9, patience=1)
    with pytest.raises(Killed):
        run(network(), chosen, dices=[0.5, 0.4], report=killed_after(1, tmp_path))
    assert run(network(1), chosen, dices=[], resume=tmp_path).epoch == 0


def test_weights_are_chosen_among_full_validations_alone_and_the_last_epoch_has_one():
    chosen, full, glanced, reports = settings(epochs=7, full_validation_every=3, patience=2), [], [], []
    dices = iter([0.6, 0.5, 0.4])

    def validate(_):
        full.append(len(reports))
        return {"val/dice": next(dices)}

    def glance(_):
        glanced.append(len(reports))
        return {"val/dice_at_network_size": 0.9 - len(reports) / 10}

    fitted = fit(
        network(),
        nn.BCEWithLogitsLoss(),
        Batches(),
        validate,
        chosen,
        lambda _, metrics, __: reports.append(metrics),
        glance=glance,
    )
    assert full == [2, 5]  # nothing better in three epochs, which is asked after full validations
    assert glanced == [0, 1, 2, 3, 4, 5]
    assert ["val/dice" in metrics for metrics in reports] == [False, False, True, False, False, True]
    assert (fitted.epoch, fitted.dice) == (2, 0.6)
    run(network(), settings(epochs=4, full_validation_every=3), dices=[0.1, 0.2])  # after epochs 2 and 3


def test_every_epoch_is_validated_in_full_unless_asked_otherwise():
    reports = []
    fit(
        network(),
        nn.BCEWithLogitsLoss(),
        Batches(),
        lambda _: {"val/dice": 0.5},
        settings(epochs=2),
        lambda _, metrics, __: reports.append(metrics),
        glance=lambda _: pytest.fail("glanced at"),
    )
    assert all("val/dice" in metrics for metrics in reports)


def one_step_at_a_time(net, chosen, *, resume=None, folder=None):
    """Train epochs of one step; return the raw weights after each, what was validated, and what was kept."""
    raw, validated = [], []

    def validate(candidate):
        raw.append(copy.deepcopy(net.state_dict()))
        validated.append(copy.deepcopy(candidate.state_dict()))
        return {"val/dice": len(raw) / 10}

    def report(_, __, write_checkpoint):
        if folder is not None:
            write_checkpoint(folder)

    kept = fit(net, nn.BCEWithLogitsLoss(), Batches(), validate, chosen, report, resume=resume).weights
    return raw, validated, kept


def test_averaged_weights_begin_with_the_first_step_and_are_the_ones_validated_and_kept():
    raw, validated, kept = one_step_at_a_time(network(), settings(epochs=2, steps_per_epoch=1, ema=0.75))
    assert equal(validated[0], raw[0])
    for name in ("0.weight", "1.running_var"):
        expected = (2 * raw[0][name] + 9 * raw[1][name]) / 11  # the decay is (1 + n) / (10 + n) after n steps
        assert torch.allclose(validated[1][name], expected)
        assert not torch.allclose(raw[1][name], expected)
    assert equal(kept, validated[1])


def test_the_decay_of_averaged_weights_rises_to_its_value_and_stays_there_after_a_resume(tmp_path):
    chosen = settings(epochs=12, steps_per_epoch=1, ema=0.5, keep="last")
    raw, validated, _ = one_step_at_a_time(network(), chosen)
    for n in (1, 11):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * validated[n - 1]["0.weight"] + (1 - decay) * raw[n]["0.weight"]
        assert torch.allclose(validated[n]["0.weight"], expected, atol=1e-6)
    with pytest.raises(Killed):
        run(network(), chosen, report=killed_after(3, tmp_path))
    resumed = run(network(5), chosen, resume=tmp_path)
    assert equal(resumed.weights, run(network(), chosen).weights)


def test_replayed_steps_are_refused_without_a_gpu():
    with pytest.raises(UserError, match="cuda_graphs needs a GPU"):
        run(network(), settings(cuda_graphs=True))


def test_the_wait_for_batches_is_told_in_percent():
    reports = []

    class Slow(Batches):
        def steps(self, first, last):
            for batch in super().steps(first, last):
                end = time.perf_counter() + 0.02
                while time.perf_counter() < end:
                    pass
                yield batch

    run(network(), settings(epochs=1), batches=Slow(), report=lambda _, metrics, __: reports.append(metrics))
    assert 0 < reports[0]["train/waiting_for_data"] <= 100


def test_a_table_of_indices_is_not_averaged():
    net = network()
    net.register_buffer("indices", torch.arange(100))
    _, _, kept = one_step_at_a_time(net, settings(epochs=3, steps_per_epoch=1, ema=0.9))
    assert torch.equal(kept["indices"], torch.arange(100))
    assert kept["1.num_batches_tracked"] == 3


def test_averaged_weights_of_a_checkpoint_of_the_first_release_are_taken_up(tmp_path):
    one_step_at_a_time(network(), settings(epochs=1, steps_per_epoch=1, ema=0.5), folder=tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    of_first_release = {"network", "optimizer", "scaler", "average", "rng", "cuda_rng", "progress"}
    assert state.keys() == of_first_release | {"averaged_steps", "batch_size", "begun"}
    del state["averaged_steps"]
    assert state["average"].keys() == state["network"].keys()
    # The first release averaged the weights before the first step, too.
    state["average"]["0.weight"] += 1
    torch.save(state, tmp_path / CHECKPOINT)
    chosen = settings(epochs=2, steps_per_epoch=1, ema=0.5)
    (raw,), (validated,), _ = one_step_at_a_time(network(), chosen, resume=tmp_path)
    assert torch.allclose(validated["0.weight"], (state["average"]["0.weight"] + raw["0.weight"]) / 2)


def test_a_checkpoint_without_averaged_weights_begins_them_with_the_next_step(tmp_path):
    one_step_at_a_time(network(), settings(epochs=1, steps_per_epoch=1), folder=tmp_path)
    chosen = settings(epochs=2, steps_per_epoch=1, ema=0.5)
    raw, validated, _ = one_step_at_a_time(network(5), chosen, resume=tmp_path)
    assert equal(raw[0], validated[0])


def test_a_batch_cut_into_parts_gives_the_same_step():
    plain = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))  # no batch norm
    parts = copy.deepcopy(plain)
    run(plain, settings(optimizer="sgd"), batches=Batches(5))
    run(parts, settings(optimizer="sgd", accumulate=3), batches=Batches(5))  # parts of 2, 2 and 1
    assert close(plain.state_dict(), parts.state_dict(), 1e-6)


def test_a_large_gradient_is_cut_to_its_limit():
    def change(**changes):
        torch.manual_seed(0)
        net = nn.Conv2d(2, 1, 1)
        before = [parameter.detach().clone() for parameter in net.parameters()]
        chosen = settings(
            epochs=1,
            steps_per_epoch=1,
            optimizer="sgd",
            weight_decay=0,
            learning_rate=1,
            schedule="constant",
            **changes,
        )
        run(net, chosen, loss=lambda logits, _: 1000 * logits.sum())
        moved = [(a.detach() - b).flatten() for a, b in zip(net.parameters(), before, strict=True)]
        return float(torch.cat(moved).norm())

    assert change() > 1000
    # The first Nesterov step is (1 + momentum) times the gradient.
    assert change(clip_gradient=0.5) == pytest.approx(1.9 * 0.5, rel=1e-4)


def test_bf16_trains_close_to_fp32():
    losses = {}

    def train(precision):
        net = network()
        keep = losses.setdefault(precision, [])
        run(net, settings(precision=precision), report=lambda _, metrics, __: keep.append(metrics["train/loss"]))
        return net.state_dict()

    full, half = train("fp32"), train("bf16")
    assert all(value.dtype == full[name].dtype for name, value in half.items())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert not equal(full, half)


@pytest.mark.parametrize(("computes", "precision"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_bf16_on_a_gpu_that_computes_in_it_and_not_where_pytorch_emulates_it(
    monkeypatch, computes, precision
):
    # As PyTorch answers on an A100 and on a T4.
    answer = lambda including_emulation=True: computes or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert resolve_precision("auto", torch.device("cuda")) == precision


def test_a_loss_that_is_not_finite_ends_the_run_with_a_hint():
    with pytest.raises(RunFailed, match=r"not finite .* epoch 0: lower training\.learning_rate"):
        run(network(), settings(), loss=lambda logits, _: logits.sum() * float("nan"))


def test_a_gpu_that_is_too_small_says_what_to_lower():
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")

    with pytest.raises(torch.OutOfMemoryError, match=r"^out of GPU memory: lower training\.batch_size \(16\), or let"):
        run(network(), settings(), loss=too_large)
    with pytest.raises(torch.OutOfMemoryError, match=r"^out of GPU memory: lower inference\.batch_size, or let"):
        fit(network(), nn.BCEWithLogitsLoss(), Batches(), too_large, settings(), lambda *_: None)


def test_a_dice_that_is_never_a_number_ends_the_run():
    with pytest.raises(RunFailed, match="validation Dice"):
        run(network(), settings(epochs=2), dices=[float("nan")] * 2)


@pytest.mark.parametrize("freeze", ["batchnorm", "encoder"])
def test_what_is_frozen_stays_as_it_was_loaded(freeze):
    chosen = ModelSettings(architecture="unet", encoder="resnet18", freeze=freeze)
    net = build_network(chosen, in_channels=2, num_outputs=1)
    before = copy.deepcopy(net.state_dict())
    run(net, settings(epochs=1, steps_per_epoch=2, ema=0.5))
    after = net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {name for name in before if "encoder" in name and ("running" in name or ".bn" in name)}
    assert norms
    assert not moved & norms
    assert any("decoder" in name for name in moved)
    assert any("encoder" in name and "conv" in name for name in moved) == (freeze == "batchnorm")


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5, "accumulate": 2}, {"checkpoint_minutes": 1e-9}])
def test_nothing_of_a_training_outlives_it(changes):
    net, batches = network(), Batches()
    held = [weakref.ref(each) for each in (net, batches)]
    gc.disable()  # on a GPU nobody would look for cycles before the next trial needs the memory
    try:
        run(net, settings(**changes), batches=batches, keep=lambda checkpoint: checkpoint.copied())
        del net, batches
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()
