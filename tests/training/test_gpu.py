"""Training on a GPU: the same results as on a CPU, by every data path, without waiting for the device."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from glioflow.data.batches.sampling import SliceBatches
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.targets import TargetSettings
from glioflow.evaluation import PostprocessSettings
from glioflow.evaluation.inference import predict_volume
from glioflow.evaluation.settings import InferenceSettings
from glioflow.models import ARCHITECTURES, LOSSES, LossSettings, ModelSettings, build_loss, build_network
from glioflow.training.batch_size import MOST_ON_GPU, find_batch_size
from glioflow.training.fitting import build_and_fit, validate, validate_at_network_size
from glioflow.training.loop import fit
from glioflow.training.settings import TrainingSettings
from glioflow.training.trainer import Trainer
from glioflow.training.workers import parameters_without_gradient

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
SLOW_TO_BUILD = {"fcn32": {"head_channels": 64, "head_kernel": 3}}


@pytest.fixture(scope="module")
def cases(prepared):
    return prepared.cases([record.id for record in prepared.records])


@pytest.fixture(autouse=True)
def _usual_mode():
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


class Blocks:
    """Random batches on the GPU; the brighter half of the first channel is tumor."""

    steps_per_pass = 6

    def __init__(self, size, batch=2, channels=3):
        self.size, self.batch, self.channels = size, batch, channels

    def steps(self, first, last):
        for step in range(first, last):
            random = torch.Generator().manual_seed(step)
            images = torch.rand(self.batch, self.channels, *self.size, generator=random)
            yield images.cuda(), (images[:, :1] > 0.5).float().cuda()


def settings(**changes):
    return TrainingSettings(**({"epochs": 2, "learning_rate": 1e-3, "batch_size": 2} | changes))


def build(name="unet", encoder="resnet18", channels=3, device="cuda"):
    torch.manual_seed(0)
    encoder = encoder if ARCHITECTURES[name].uses_encoder and name not in ("segformer", "dpt") else None
    chosen = ModelSettings(architecture=name, encoder=encoder, options=SLOW_TO_BUILD.get(name, {}))
    return build_network(chosen, in_channels=channels, num_outputs=1).to(device)


def loss(name="dice_bce"):
    return build_loss(LossSettings(name=name), task="binary").cuda()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_from_replayed_steps(name, precision):
    size = (64, 64) if ARCHITECTURES[name].dims == 2 else (32, 32, 32)
    network = build(name)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    trainer = Trainer(network, loss(), Blocks(size), settings(precision=precision, epochs=1, steps_per_epoch=8))
    trainer.run_epoch(0)  # raises where the loss is no number
    assert trainer.choices["cuda_graphs"].startswith("true"), trainer.choices
    moved = [not torch.equal(before[key], value) for key, value in network.named_parameters()]
    assert sum(moved) > 0.5 * len(moved)  # some decoders have parts that the loss does not see


def test_a_step_that_cannot_be_recorded_is_taken_one_kernel_at_a_time():
    compute = loss()

    class Waiting(nn.Module):
        on_device = True

        def forward(self, logits, targets):
            value = compute(logits, targets)
            float(value.detach())  # waits for the device, which no recording allows
            return value

    network = build("deeplabv3")  # with dropout, whose random numbers a broken recording could spoil
    trainer = Trainer(network, Waiting(), Blocks((64, 64)), settings(epochs=2, steps_per_epoch=8))
    first = trainer.run_epoch(0)["train/loss"]
    assert trainer.take.graph is None
    assert trainer.take.failed
    assert trainer.choices["cuda_graphs"] == f"false: {trainer.take.failed}"
    assert trainer.run_epoch(1)["train/loss"] < first
    assert Trainer(build("deeplabv3"), loss(), Blocks((64, 64)), settings()).run_epoch(0)["train/loss"] > 0


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ("dpt",)])
def test_every_architecture_repeats_itself_to_the_last_bit_in_deterministic_mode(name, monkeypatch):
    size = (64, 64) if ARCHITECTURES[name].dims == 2 else (32, 32, 32)
    torch.use_deterministic_algorithms(True)
    states = []
    from glioflow.models.pooling import replace_pooling

    for _ in range(2):
        network = build(name)
        replace_pooling(network)
        Trainer(network, loss(), Blocks(size), settings(deterministic=True, steps_per_epoch=5)).run_epoch(0)
        states.append({key: value.cpu() for key, value in network.state_dict().items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", [name for name, each in LOSSES.items() if "multiclass" in each.tasks])
@pytest.mark.parametrize("size", [(64, 64), (16, 16, 16)])
def test_every_loss_of_classes_has_a_gradient_in_deterministic_mode(name, size):
    torch.use_deterministic_algorithms(True)
    logits = torch.rand(2, 3, *size, device="cuda", requires_grad=True)
    build_loss(LossSettings(name=name), task="multiclass").cuda()(logits, (logits > 0.5).long().argmax(1)).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "clip_gradient": 1.0}, {"optimizer": "sgd", "accumulate": 2}])
def test_a_replayed_training_goes_as_one_that_is_not(changes):
    states = []
    for graphs in (True, False):
        torch.use_deterministic_algorithms(True)
        network = build()
        chosen = settings(cuda_graphs=graphs, deterministic=True, batch_size=4, **changes)
        fitted = fit(network, loss(), Blocks((64, 64), 4), lambda _: {"val/dice": 0.5}, chosen, lambda *_: None)
        states.append(fitted.weights)
    assert all(torch.allclose(states[0][key].float(), states[1][key].float(), atol=1e-5) for key in states[0])


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_training_on_a_gpu_has_its_fast_kernels(monkeypatch, optimizer, deterministic):
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", deterministic)
    trainer = Trainer(build(), loss(), Blocks((64, 64)), settings(optimizer=optimizer, deterministic=deterministic))
    assert trainer.optimizer.param_groups[0]["fused"]
    assert torch.get_float32_matmul_precision() == "high"  # TF32
    assert torch.backends.cudnn.benchmark is not deterministic
    weights = [each for each in trainer.network.parameters() if each.ndim == 4 and each.shape[1] > 1]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)


class Killed(Exception):  # noqa: N818
    """The process is gone."""


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"precision": "fp16"}, {"optimizer": "sgd"}, {"precision": "fp16", "optimizer": "sgd"}],
    ids=str,
)
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, changes):
    chosen = settings(epochs=3, deterministic=True, keep="last", **changes)

    def run(resume=None, killed=None):
        torch.use_deterministic_algorithms(True)

        def report(epoch, _, write_checkpoint):
            if epoch == killed:
                write_checkpoint(tmp_path)
                raise Killed

        validate = lambda _: {"val/dice": 0.5}  # noqa: E731
        return fit(build(), loss(), Blocks((64, 64)), validate, chosen, report, resume=resume).weights

    whole = run()
    with pytest.raises(Killed):
        run(killed=1)
    again = run(resume=tmp_path)
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"precision": "fp16"}], ids=str)
def test_a_training_resumed_within_an_epoch_from_a_copy_ends_with_the_same_bits(tmp_path, changes):
    chosen = settings(epochs=2, deterministic=True, keep="last", checkpoint_minutes=1e-9, **changes)

    def run(resume=None):
        torch.use_deterministic_algorithms(True)
        copies = []
        fitted = fit(
            build(),
            loss(),
            Blocks((64, 64)),
            lambda _: {"val/dice": 0.5},
            chosen,
            lambda *_: None,
            resume=resume,
            keep=lambda checkpoint: copies.append(checkpoint.copied()),
        )
        return fitted.weights, copies

    whole, copies = run()
    copies[6](tmp_path)  # after two steps of the second epoch; by now the network has other weights
    again, _ = run(resume=tmp_path)
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def batches(cases, *, device="cuda", storage="device", augmentation="none", **more):
    chosen = SamplingSettings(augmentation=augmentation)
    return SliceBatches(
        cases, TargetSettings(), chosen, batch_size=8, seed=3, device=torch.device(device), storage=storage, **more
    )


@pytest.mark.parametrize("storage", ["device", "host", "disk"])
def test_a_batch_is_the_same_by_every_path(cases, storage):
    here = list(batches(cases, device="cpu", storage="disk").steps(0, 3))
    there = list(batches(cases, storage=storage, num_threads=2).steps(0, 3))
    for (images, targets), (images_there, targets_there) in zip(here, there, strict=True):
        assert torch.equal(images, images_there.cpu())
        assert torch.equal(targets, targets_there.cpu())


@pytest.mark.parametrize("augmentation", ["light", "strong", "nnunet"])
def test_a_batch_is_varied_on_a_gpu_as_on_a_cpu(cases, augmentation):
    here = batches(cases, device="cpu", storage="disk", augmentation=augmentation).batch(4)
    there = batches(cases, augmentation=augmentation).batch(4)
    differing = (here[1] != there[1].cpu()).float().mean()
    assert differing < 0.002  # a border of a label may fall on the other side of half a voxel
    close = ((here[0] - there[0].cpu()).abs() < 0.02).float().mean()
    assert close > (0.999 if augmentation == "light" else 0.75)  # noise is drawn by each device itself


@pytest.mark.parametrize("augmentation", ["none", "light", "strong", "nnunet"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_no_step_of_an_epoch_waits_for_the_device(cases, augmentation, optimizer):
    made = batches(cases, augmentation=augmentation)
    chosen = settings(precision="bf16", ema=0.9, clip_gradient=1.0, optimizer=optimizer, batch_size=8)
    trainer = Trainer(build(), loss(), made, chosen)
    steps = enumerate(made.steps(0, 12))
    for step, (images, targets) in steps:
        if step == 5:
            torch.cuda.set_sync_debug_mode("error")
        trainer.step(step, images, targets)


def dice_of(network, cases, precision):
    options = {"target": TargetSettings(), "inference": InferenceSettings(), "postprocess": PostprocessSettings()}
    return validate(network, cases, precision=precision, **options)["val/dice"]


def trained(cases, **changes):
    """Train on the device of the process; return the network and the loss of each step."""
    losses = []
    network, _ = build_and_fit(
        ModelSettings(architecture="unet", encoder="resnet18"),
        LossSettings(name="dice_bce"),
        TargetSettings(),
        settings(steps_per_epoch=1, batch_size=8, precision="fp32", keep="last", **changes),
        cases,
        lambda _: {"val/dice": 0.5},
        lambda _, metrics, __: losses.append(metrics["train/loss"]),
        num_threads=8,
    )
    return network, losses


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.002), ("bf16", 0.005)])
def test_a_trained_network_has_the_dice_of_the_cpu(cases, precision, tolerance):
    # One network's, and not that of two trainings: AdamW's first updates have the size of the learning rate whatever
    # that of the gradient, so that gradients that differ by rounding alone soon give other networks.
    network, _ = trained(cases, epochs=150)
    there = dice_of(network, cases, precision)
    here = dice_of(network.cpu(), cases, "fp32")
    assert here > 0.5, "it has learned nothing that could be compared"
    assert there == pytest.approx(here, abs=tolerance)  # on one CPU, bf16 alone moves it by 0.0017


def test_a_training_begins_with_the_losses_of_the_cpu(cases, monkeypatch):
    there = trained(cases, epochs=3)[1]
    monkeypatch.setattr("glioflow.training.fitting.choose_device", lambda: torch.device("cpu"))
    here = trained(cases, epochs=3)[1]
    assert there[0] == pytest.approx(here[0], abs=0.002)  # the same weights and the same batch
    assert there == pytest.approx(here, abs=0.05)


def test_a_prediction_on_a_gpu_is_that_of_the_cpu(cases):
    network = build()
    network.train()
    for images, _ in Blocks((48, 48), 8).steps(0, 3):
        network(images)
    there = [predict_volume(network, case.image, softmax=False, batch_size=4, precision="bf16") for case in cases]
    network.cpu()
    for case, found in zip(cases, there, strict=True):
        here = predict_volume(network, case.image, softmax=False, precision="fp32")
        assert abs(here - found).max() < 0.02


def test_validation_at_network_size_is_that_of_the_cpu(cases):
    network = build()
    network.train()
    for images, _ in Blocks((48, 48), 8).steps(0, 3):
        network(images)
    options = {
        "target": TargetSettings(),
        "inference": InferenceSettings(batch_size=4),
        "threshold": 0.5,
        "precision": "fp32",
    }
    there = validate_at_network_size(network, cases, **options)
    here = validate_at_network_size(network.cpu(), cases, **options)
    assert there["val/dice_at_network_size"] == pytest.approx(here["val/dice_at_network_size"], abs=0.01)


def test_ddp_of_one_rank_over_nccl_trains_what_has_parameters_without_gradient(tmp_path):
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        network = build("pspnet")
        idle = parameters_without_gradient(network, loss(), Blocks((64, 64)))
        assert idle
        for parameter in idle:
            parameter.requires_grad_(False)
        parallel = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
        for images, targets in Blocks((64, 64)).steps(0, 3):
            loss()(parallel(images), targets).backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("room", [0.6 * 2**30, 2**34])
def test_an_automatic_batch_fits_into_its_memory_and_fills_it(cases, room):
    network = build()
    random = torch.cuda.get_rng_state()
    chosen = settings(batch_size="auto", precision="bf16", ema=0.9)
    many = cases * 300
    size = find_batch_size(network, loss(), TargetSettings(), chosen, many, storage="disk", available=room)
    assert torch.equal(torch.cuda.get_rng_state(), random)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()  # the tests before this one leave some
    made = Blocks(cases[0].record.prepared_shape[1:], size)
    trainer = Trainer(network, loss(), made, settings(precision="bf16", ema=0.9, epochs=1, steps_per_epoch=6))
    trainer.run_epoch(0)
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < 1.2 * room
    assert size == MOST_ON_GPU or peak > 0.3 * room


def test_an_automatic_batch_trains(cases):
    reports = []
    build_and_fit(
        ModelSettings(architecture="unet", encoder="resnet18"),
        LossSettings(name="dice_bce"),
        TargetSettings(),
        settings(batch_size="auto", epochs=1, steps_per_epoch=5),
        cases,
        lambda _: {"val/dice": 0.5},
        lambda _, metrics, __: reports.append(metrics),
    )
    assert reports[0]["train/batch_size"] >= 2
