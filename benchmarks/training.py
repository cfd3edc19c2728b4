"""Training steps of `lgg-best` beside a bare PyTorch loop of the same network, data, augmentation, loss and precision.

Run: GLIOFLOW_DATA=... python benchmarks/training.py [--rounds 8] [--steps 12] [--baseline CHECKOUT]

With --baseline, the peer is the loop of commit a8639e3, which lies in CHECKOUT: the same cohort, split, experiment and
policy of augmentation, each with its own code for everything from the prepared arrays to the optimizer.

The peer holds the training slices in memory as uint8, draws them by the same rule, flips, rotates and scales them with
OpenCV by itself, and trains the U-Net of segmentation-models-pytorch directly. Both run bf16 and channels_last on all
cores.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from glioflow.cluster.storage import data_folder, data_source, prepared_home
from glioflow.config import Experiment, load_experiment, override
from glioflow.data.batches.sampling import batches_of
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.splits import make_split
from glioflow.models import build_loss, build_network
from glioflow.training.trainer import Trainer

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "lgg-best.yaml"


class BareLoop:
    """What a competent user would write without us."""

    def __init__(self, cases: list[PreparedCase], weights: Path, batch_size: int) -> None:
        self.images = [np.rint(np.asarray(case.image, np.float32) * 255).astype(np.uint8) for case in cases]
        self.masks = [(np.asarray(case.mask) > 0).astype(np.uint8) for case in cases]
        self.probabilities = [self._area_rule(mask) for mask in self.masks]
        self.batch_size, self.rng = batch_size, np.random.default_rng(0)
        self.network = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=3, classes=1)
        self.network.encoder.load_state_dict(torch.load(weights, weights_only=True))
        self.network.to(memory_format=torch.channels_last).train()
        for module in self.network.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)
        kept = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(kept, lr=1e-3)

    @staticmethod
    def _area_rule(mask: np.ndarray) -> np.ndarray:
        areas = mask.sum(axis=(1, 2)).astype(float)
        raised = areas + 0.1 * areas.mean()
        return raised / raised.sum()

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        k = self.rng.integers(len(self.images))
        s = self.rng.choice(len(self.images[k]), p=self.probabilities[k])
        image, mask = self.images[k][s], self.masks[k][s]
        if self.rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if self.rng.random() < 0.7:
            side = image.shape[0]
            turn = cv2.getRotationMatrix2D(
                (side / 2, side / 2), self.rng.uniform(-10, 10), self.rng.uniform(0.92, 1.08)
            )
            image = cv2.warpAffine(np.ascontiguousarray(image), turn, (side, side))
            mask = cv2.warpAffine(np.ascontiguousarray(mask), turn, (side, side), flags=cv2.INTER_NEAREST)
        return image, mask

    def steps(self, count: int) -> None:
        """Take `count` optimizer steps."""
        for _ in range(count):
            drawn = [self._draw() for _ in range(self.batch_size)]
            images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
            target = torch.from_numpy(np.stack([mask for _, mask in drawn])[:, None]).float()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = self.network(images.float() / 127.5 - 1)
            logits = logits.float()
            probability = torch.sigmoid(logits)
            overlap = (probability * target).sum((1, 2, 3))
            dice = 1 - (2 * overlap + 1) / ((probability + target).sum((1, 2, 3)) + 1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target) + dice.mean()
            loss.backward()
            self.optimizer.step()


def ours(cases: list[PreparedCase], experiment: Experiment, *, channels: int) -> Callable[[int], None]:
    """Return a function that takes so many steps of GlioFlow's own loop."""
    settings, target = experiment.training, experiment.target
    network = build_network(experiment.model, in_channels=channels, num_outputs=target.num_outputs)
    batches = batches_of(settings.sampling)(cases, target, settings.sampling, batch_size=settings.batch_size, seed=0)
    trainer = Trainer(network, build_loss(experiment.loss, task=target.task), batches, settings)
    network.train()
    done = 0

    def steps(count: int) -> None:
        nonlocal done
        for step, (images, targets) in enumerate(batches.steps(done, done + count), start=done):
            trainer.step(step, images, targets)
        done += count

    return steps


# Takes as many steps as each line of its input says, and answers each line when they are done.
BASELINE = """
import os, sys
from pathlib import Path
checkout, path, policy, home = sys.argv[1:]
sys.path.insert(0, checkout + "/platform")
import torch
from glioflow.config import load_experiment, override
from glioflow.config.places import data_folder, data_source
from glioflow.data.loaders import batches_of
from glioflow.data.prepared import find_or_prepare
from glioflow.data.splits import make_split
from glioflow.models import build_loss, build_network
from glioflow.training.loop import Trainer

torch.set_num_threads(os.cpu_count() or 1)
experiment = override(load_experiment(Path(path)), {"training.sampling.augmentation": policy})
cohort = find_or_prepare(data_source(None, experiment.data.source), experiment.preprocess, home=Path(home))
cases = cohort.cases(make_split(cohort.records, experiment.split, folder=data_folder()).train)
settings, target = experiment.training, experiment.target
network = build_network(experiment.model, in_channels=len(cohort.channels), num_outputs=target.num_outputs)
batches = batches_of(settings.sampling)(cases, target, settings.sampling, batch_size=settings.batch_size, seed=0)
trainer = Trainer(network, build_loss(experiment.loss, task=target.task), batches, settings)
network.train()
done = 0
print("ready", flush=True)
for line in sys.stdin:
    for step, (images, targets) in enumerate(batches.steps(done, done + int(line)), start=done):
        trainer.step(step, images, targets)
    done += int(line)
    print(done, flush=True)
"""


@contextmanager
def of_baseline(checkout: Path, path: Path, policy: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes so many steps of another checkout's loop."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", BASELINE, str(checkout.resolve()), str(path.resolve()), policy, home]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        assert child.stdin is not None
        assert child.stdout is not None
        lines = child.stdout

        def until_it_answers() -> None:
            if not lines.readline():
                raise SystemExit("the baseline ended; its error stands above")

        def steps(count: int) -> None:
            print(count, file=child.stdin, flush=True)
            until_it_answers()

        try:
            until_it_answers()
            yield steps
        finally:
            child.kill()
            child.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--baseline", type=Path, help="checkout of commit a8639e3")
    parser.add_argument("--experiment", type=Path, default=EXPERIMENT, help="with --baseline")
    parser.add_argument("--policy", default="light", help="of augmentation, with --baseline")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    experiment = load_experiment(given.experiment if given.baseline else EXPERIMENT)
    cohort = find_or_prepare(data_source(None, experiment.data.source), experiment.preprocess, home=prepared_home())
    split = make_split(cohort.records, experiment.split, folder=data_folder())
    cases = cohort.cases(split.train)
    if given.baseline:
        experiment = override(experiment, {"training.sampling.augmentation": given.policy})
        own = ours(cases, experiment, channels=len(cohort.channels))
        with of_baseline(given.baseline, given.experiment, given.policy) as steps:
            measure({"baseline": steps, "GlioFlow": own}, given, experiment.training.batch_size)
    else:
        weights = (data_folder() or Path()) / str(experiment.model.weights)
        bare = BareLoop(cases, weights, experiment.training.batch_size).steps
        own = ours(cases, experiment, channels=len(cohort.channels))
        measure({"bare PyTorch loop": bare, "GlioFlow": own}, given, experiment.training.batch_size)


def measure(contenders: dict[str, Callable[[int], None]], given: argparse.Namespace, batch_size: int) -> None:
    """Take steps of one, then of the other, and print the medians and the ratio of ours to the peer's."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for steps in contenders.values():
        steps(given.steps)  # kernels are chosen and compiled on the first ones
    for _ in range(given.rounds):
        for name, steps in contenders.items():
            began = time.perf_counter()
            steps(given.steps)
            speeds[name].append(given.steps * batch_size / (time.perf_counter() - began))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"{machine}, {given.rounds} rounds of {given.steps} steps")
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name}: median {medians[name]:.1f} samples/s (from {min(values):.1f} to {max(values):.1f})")
    peer = next(iter(medians))
    print(f"ratio {medians['GlioFlow'] / medians[peer]:.2f}")


if __name__ == "__main__":
    main()
