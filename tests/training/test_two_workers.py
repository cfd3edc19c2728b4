"""The loop in two processes of torch.distributed, without Ray."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from glioflow.models import ModelSettings, build_network
from glioflow.training.loop import fit
from glioflow.training.settings import TrainingSettings
from glioflow.training.workers import parameters_without_gradient, synchronize_batch_norm


class Halves:
    """Each worker's own half of a batch."""

    steps_per_pass = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def steps(self, first, last):
        for step in range(first, last):
            images = torch.rand(4, 2, 32, 32, generator=torch.Generator().manual_seed(step))[self.rank :: 2]
            yield images, (images[:, :1] > 0.5).float()


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = build_network(
        ModelSettings(
            architecture="fcn32", encoder="mobilenet_v2", freeze="encoder", options={"head_channels": 8, "dropout": 0.0}
        ),
        in_channels=2,
        num_outputs=1,
    )
    began = {name: value.clone() for name, value in network.named_parameters()}
    settings = TrainingSettings(epochs=2, unfreeze_epoch=1, precision="fp32", learning_rate=1e-2, weight_decay=0)
    moved = []

    def report(*_) -> None:
        moved.append({name for name, value in network.named_parameters() if not torch.equal(began[name], value)})

    fit(network, nn.BCEWithLogitsLoss(), Halves(rank), lambda _: {"val/dice": 0.5}, settings, report)
    torch.save({"weights": dict(network.named_parameters()), "moved": moved}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_agree_on_every_weight_before_and_after_the_unfreezing(tmp_path):
    multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert not any("encoder" in name for name in first["moved"][0])
    assert "body.encoder.features.0.0.weight" in first["moved"][1]
    assert all(torch.equal(first["weights"][name], value) for name, value in second["weights"].items())


@pytest.mark.parametrize("encoder", ["tu-efficientnet_b0", "resnet18"])
def test_a_network_whose_workers_share_statistics_computes_what_its_bundle_does(encoder):
    chosen = ModelSettings(architecture="unet", encoder=encoder)
    network = build_network(chosen, in_channels=2, num_outputs=1).eval()
    images = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        before = network(images)
        for _ in range(2):  # once more where the encoder is unfrozen
            synchronize_batch_norm(network)
            assert torch.equal(network(images), before)
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(each, nn.SyncBatchNorm) for each in norms)


@pytest.mark.parametrize(("name", "idle"), [("deeplabv3", 0), ("pspnet", 30)])
def test_parameters_without_gradient_are_found_with_a_batch_of_one_sample(name, idle):
    class Single:
        def steps(self, first, last):
            for _ in range(first, last):
                yield torch.rand(1, 2, 32, 32), torch.zeros(1, 1, 32, 32)

    network = build_network(ModelSettings(architecture=name, encoder="resnet18"), in_channels=2, num_outputs=1)
    assert len(parameters_without_gradient(network, nn.BCEWithLogitsLoss(), Single())) == idle


def work_with_idle_parameters(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = build_network(ModelSettings(architecture="pspnet", encoder="resnet18"), in_channels=2, num_outputs=1)
    settings = TrainingSettings(epochs=1, precision="fp32", accumulate=2, ema=0.9)
    validated = {}

    def validate(candidate: nn.Module) -> dict[str, float]:
        validated.update({name: value.clone() for name, value in candidate.state_dict().items()})
        return {"val/dice": 0.5}

    fit(network, nn.BCEWithLogitsLoss(), Halves(rank), validate, settings, lambda *_: None)
    torch.save({"validated": validated, "random": torch.rand(3)}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_train_what_has_parameters_without_gradient_and_validate_one_network(tmp_path):
    multiprocessing.spawn(work_with_idle_parameters, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, second["validated"][name]) for name, value in first["validated"].items())
    assert not torch.equal(first["random"], second["random"])  # each worker's dropout is its own


def work_and_go_on_within_an_epoch(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    settings = TrainingSettings(epochs=2, precision="fp32", keep="last", checkpoint_minutes=1e-9)

    def train(resume: Path | None = None) -> tuple[list, dict]:
        torch.manual_seed(0 if resume is None else 7)
        network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))
        copies: list = []
        fit(
            network,
            nn.BCEWithLogitsLoss(),
            Halves(rank),
            lambda _: {"val/dice": 0.5},
            settings,
            lambda *_: None,
            resume=resume,
            keep=lambda checkpoint: copies.append(checkpoint.copied()),
        )
        return copies, network.state_dict()

    copies, whole = train()
    assert [copy.state["progress"]["epoch"] for copy in copies] == [0, 1]
    for number, copy in enumerate(copies):
        if rank == 0:
            (folder / str(number)).mkdir()
            copy(folder / str(number))
        dist.barrier()
        _, again = train(folder / str(number))
        assert all(torch.equal(whole[name], value) for name, value in again.items())
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_that_go_on_within_an_epoch_end_with_the_same_bits(tmp_path):
    multiprocessing.spawn(work_and_go_on_within_an_epoch, args=(tmp_path,), nprocs=2)
