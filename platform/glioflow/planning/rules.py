"""The rules of a plan: settings from facts, each with its reason.

Sources: nnU-Net's published rules (Isensee et al., Nature Methods 2021: spacings three times apart are anisotropic, the
median spacing is the target, patches are as large as head and memory allow, a batch has at least two, z-scores inside
the head, regions are learned where regions are scored), and our own measurements in `benchmarks/`. nnU-Net trains a 3D
network for anisotropic volumes, too, and compares it with a 2D one; a plan chooses 2D, which needs a budget for one.
Costs on CPU are for two cores. Numbers without a source are conventions.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from glioflow.label_schemes import scheme_with
from glioflow.planning.facts import CohortFacts, Machine
from glioflow.planning.sizes import (
    batch_size,
    is_cut_away,
    is_thin,
    is_volumetric,
    patch_size,
    plane_size,
    working_spacing,
)
from glioflow.quantities import count

# `strong` was compared with `light` from this many steps on (benchmarks/lgg.md); ENOUGH is a limit, not measured.
FEWEST_STEPS, FEW_STEPS, ENOUGH = 50, 1200, 12000
# Minimum patients for five folds of sufficient size, and for reliable choices on validation patients.
FOR_FIVE_FOLDS, FOR_CHOICES = 15, 25
# Fraction of a training's time planned for steps; the rest is for everything that is not measured.
STEPPING = 0.7
# Channels of a U-Net's decoder on CPU cores, where the usual one takes most of a step (benchmarks/decoders.py).
THIN_DECODER = [64, 48, 32, 16, 8]


@dataclass(frozen=True)
class Choice:
    """A setting: its key in an experiment file, its value, and the reason."""

    key: str
    value: Any
    reason: str


def plan_target(facts: CohortFacts) -> Iterator[Choice]:
    """Choose the target from the labels in the masks."""
    scheme = facts.regions or scheme_with({value: label.name for value, label in facts.labels.items()})
    by_word = {
        word: value
        for value, label in facts.labels.items()
        for word in ("necro", "edema", "enhanc")
        if word in label.name
    }
    shown = ", ".join(f"{value} {label.name} ({label.share:.0%} of cases)" for value, label in facts.labels.items())
    if len(facts.labels) == 1:
        yield Choice("target.kind", "binary", f"one label: {shown}")
    elif scheme is not None and scheme.name not in ("brats-2021", "brats-2023"):
        yield Choice("target.kind", "regions", f"labels of {scheme.name}: {shown}; its regions are scored, so learned")
        regions = {name: sorted(values) for name, values in scheme.regions.items()}
        yield Choice("target.regions", regions, "in the order in which they are decoded")
        yield Choice("target.decode", dict(scheme.decode), "the label of each")
    elif (
        len(facts.labels) == 3 and len(by_word) == 3 and not any("non" in label.name for label in facts.labels.values())
    ):
        core, edema, enhancing = by_word["necro"], by_word["edema"], by_word["enhanc"]
        yield Choice(
            "target.kind", "regions", f"labels of BraTS: {shown}; its nested regions are scored, so they are learned"
        )
        regions = {"WT": sorted(facts.labels), "TC": sorted([core, enhancing]), "ET": [enhancing]}
        yield Choice("target.regions", regions, "whole tumor, tumor core, enhancing tumor")
        yield Choice("target.decode", {"WT": edema, "TC": core, "ET": enhancing}, "the label of each, innermost first")
    else:
        yield Choice("target.kind", "multiclass", f"several labels that exclude one another: {shown}")
        yield Choice("target.labels", sorted(facts.labels), "in the order of their values")


def plan_preprocessing(facts: CohortFacts, machine: Machine) -> Choice:
    """Choose the steps of preprocessing."""
    volumetric, _ = is_volumetric(facts)
    cut, reasons = is_cut_away(facts), []
    low, high = facts.values
    steps: list[dict[str, object]] = []
    bytes_stored = facts.whole_numbers and low >= 0 and high <= 255 and high > 1
    if cut and (volumetric or not bytes_stored):
        steps.append({"step": "crop_box", "above": 0.0})
        reasons.append(f"{facts.background:.0%} of the voxels are 0, which is cut off")
    if volumetric:
        assert facts.spacing_mm is not None
        spacing = working_spacing(facts, machine)
        steps.append({"step": "resample", "spacing_mm": spacing})
        coarser = f"at least {min(spacing):g} mm, since {count(machine.cores, 'core')} without a GPU carry few voxels"
        reasons.append("the median spacing, as nnU-Net" if spacing == list(facts.spacing_mm) else coarser)
        steps.append({"step": "zscore", "nonzero": cut})
        reasons.append(f"z-scores {'inside the head' if cut else 'of the volume'}, as nnU-Net for MR")
        return Choice("preprocess", steps, "; ".join(reasons))
    if steps or facts.shape[1] != facts.shape[2]:  # heads differ in shape
        steps.append({"step": "pad_square"})
        reasons.append("squares, so that nothing is stretched")
    if bytes_stored:
        steps.insert(0, {"step": "unit"})
        alone = "" if is_thin(facts) else ", so lone slices work, too"
        reasons.append(f"8-bit values ({low:g} to {high:g}) need no statistics of the volume{alone}")
    else:
        steps.append({"step": "percentile", "low": 0.5, "high": 99.5, "nonzero": cut})
        ranges = ", ".join(f"{name} {q[0]:g} to {q[2]:g}" for name, q in facts.intensities.items())
        reasons.append(f"each volume's own range, since values have no common scale (0.5 % to 99.5 %: {ranges})")
    if is_thin(facts):
        steps.append({"step": "neighbors"})
        reasons.append("2.5D: slices lie close, so both neighbors are further channels")
    size = plane_size(facts, machine)
    steps.append({"step": "resize", "size": size})
    extent = "head" if steps[0]["step"] == "crop_box" else "image"
    slow = not machine.gpus and size == 128
    limit = "larger slices are slow without a GPU" if slow else f"as large as the {extent}"
    reasons.append(f"{size} px: {limit}")
    return Choice("preprocess", steps, "; ".join(reasons))


def plan_network(facts: CohortFacts, machine: Machine, *, weights: str | None) -> Iterator[Choice]:
    """Choose architecture, encoder and patch."""
    volumetric, why = is_volumetric(facts)
    if volumetric:
        name = "dynunet" if machine.gpus else "unet3d"
        cost = "nnU-Net's U-Net" if machine.gpus else "4 times cheaper a step than segresnet, 14 times than dynunet"
        yield Choice("model.architecture", name, f"{why}; {cost}")
        return
    yield Choice("model.architecture", "unet", why)
    encoder = "resnet34" if machine.gpus else "mobilenet_v2"
    cost = "a GPU trains it faster than lighter ones" if machine.gpus else "the cheapest encoder on CPU cores"
    if weights:
        yield Choice("model.encoder", "mobilenet_v2", f"its ImageNet weights are at hand ({weights})")
        yield Choice("model.weights", weights, "few patients: an encoder that has seen images learns faster")
        yield Choice("model.input_scaling", "symmetric", "what these weights expect")
        yield Choice("model.freeze", "batchnorm", "its statistics come from many images, a batch's from a few patients")
    else:
        yield Choice("model.encoder", encoder, f"{cost}; from random numbers, since no weights are at hand")
    if not machine.gpus:
        thin = "a thin decoder, as in `starter`: a step on CPU cores takes about half the time"
        yield Choice("model.options", {"decoder_channels": THIN_DECODER}, thin)


def plan_training(
    facts: CohortFacts,
    machine: Machine,
    *,
    minutes: float,
    seconds_per_step: float,
    halved: int = 0,
    probe: str = "memory was not probed",
) -> Iterator[Choice]:
    """Choose batch, patch, loss, augmentation and length for a time, at a measured speed.

    Args:
        facts: About the cohort.
        machine: Machine on which the training will run.
        minutes: Time for the training.
        seconds_per_step: As measured.
        halved: How often batch or patch was halved until a step fit into memory.
        probe: Memory use of a step, in words.
    """
    volumetric, _ = is_volumetric(facts)
    yield _loss(facts)
    if volumetric:
        yield Choice("training.batch_size", batch_size(True), "patches in a batch, as nnU-Net")
    elif machine.gpus:
        yield Choice("training.batch_size", "auto", "the largest that fits, found by trying on the GPU")
    else:
        why = "slices; more is no faster on CPU cores" if not halved else "slices, as many as memory allows"
        yield Choice("training.batch_size", batch_size(False, halved=halved), f"{why}; {probe}")
    affordable = int(STEPPING * 60 * minutes / max(seconds_per_step, 1e-6))
    steps = max(FEWEST_STEPS, min(ENOUGH, affordable))
    per_epoch = max(25, min(250, steps // 8))
    epochs = max(1, steps // per_epoch)
    limit = "; a plan has no more" if steps == ENOUGH else "; a plan has no fewer" if steps > affordable else ""
    within = f"{epochs * per_epoch:,} steps within {minutes:g} minutes" if steps <= affordable else f"{steps} steps"
    length = f"{seconds_per_step:.2g} s a step, measured here: {within}{limit}"
    yield from plan_length(epochs, per_epoch, length, by_slices=not volumetric)
    rate = 2.0e-3 if volumetric else 1.0e-3
    yield Choice("training.learning_rate", rate, "a usual rate for AdamW; the search tries around it")
    yield Choice("training.clip_gradient", 5, "one odd case cannot throw the weights far")
    if volumetric:
        steps_of = plan_preprocessing(facts, machine).value
        spacing = next(step["spacing_mm"] for step in steps_of if step["step"] == "resample")
        patch = patch_size(facts, machine, spacing, halved=halved)
        limit = "memory" if machine.gpus or halved else f"{machine.cores} cores without a GPU"
        about = f"as large as {limit} and the head allow; half of them about a tumor voxel; {probe}"
        yield Choice("training.sampling.patch", patch, about)
    share = f"tumor is in {facts.tumor_slices:.0%} of the slices, and half of a batch shall show some"
    yield Choice("training.sampling.method", "tumor", share)
    if machine.gpus:
        yield Choice(
            "training.gpus_per_worker",
            1,
            f"{len(machine.gpus)} x {machine.gpus[0]}, {machine.gpu_memory_gb:.0f} GB, on {machine.what}",
        )
    else:
        yield Choice("training.cpus_per_worker", machine.cores, f"all cores of {machine.what}; it has no GPU")


def plan_length(epochs: int, steps_per_epoch: int, reason: str, *, by_slices: bool) -> Iterator[Choice]:
    """Choose the settings that depend on the length of a training, which `reason` states."""
    steps = epochs * steps_per_epoch
    yield Choice("training.epochs", epochs, reason)
    yield Choice("training.steps_per_epoch", steps_per_epoch, "an epoch ends with a validation")
    yield Choice(
        "training.warmup_steps", min(100, steps // 20), "the first gradients of a new network are large and random"
    )
    strong = steps >= FEW_STEPS
    gained = "2,400 steps of slices with `strong` gained 0.026 in Dice over 1,200 with `light` (benchmarks/lgg.md)"
    few = f"fewer than {FEW_STEPS:,} steps: strong variation needs longer trainings"
    yield Choice("training.sampling.augmentation", "strong" if strong else "light", gained if strong else few)
    if by_slices:
        steadier = "mirrored averages cost a second forward pass and make masks steadier"
        spared = f"fewer than {FEW_STEPS:,} steps: without mirrored averages, which double a validation"
        yield Choice("inference.flip", strong, steadier if strong else spared)


def _loss(facts: CohortFacts) -> Choice:
    kind = next(plan_target(facts)).value
    smallest = min((label.median_px for label in facts.labels.values() if label.median_px), default=0)
    if kind == "binary":
        return Choice("loss.name", "dice_bce", f"overlap and every pixel; the median tumor has {smallest:,} voxels")
    if kind == "regions":
        terms = [{"name": "dice_batch"}, {"name": "bce"}]
        return Choice("loss.terms", terms, "overlap over the batch, since a region may be missing in a sample")
    return Choice("loss.name", "dice_ce", "overlap and every voxel, for labels that exclude one another")


def plan_split(facts: CohortFacts) -> Iterator[Choice]:
    """Choose the folds, and the settings to be chosen on validation patients."""
    folds = 5 if facts.patients >= FOR_FIVE_FOLDS else max(3, min(5, facts.patients))
    size = f"{count(facts.patients, 'patient')} with masks, {count(facts.cases, 'case')}"
    yield Choice("split.method", "kfold", f"by patient: {size}")
    yield Choice("split.folds", folds, f"about {count(max(1, facts.patients // folds), 'patient')} in each")


def plan_inference(facts: CohortFacts) -> Iterator[Choice]:
    """Choose how masks are made from probabilities."""
    if facts.patients >= FOR_CHOICES:
        yield Choice("postprocess.choose", True, "threshold and clean-up, on the validation patients")
        return
    yield Choice("training.keep", "last", f"{facts.patients} patients leave too few to choose an epoch on")
    yield Choice("postprocess.choose", False, "and too few to choose a threshold on")
    if facts.in_one_piece >= 0.95:
        share = math.floor(1000 * facts.in_one_piece) / 10
        part = "the whole tumor" if share == 100 else f"at least {share:g} % of the tumor"
        largest = f"in half of the cases {part} is one component"
        yield Choice("postprocess.largest_component", True, largest)


def plan_survival(facts: CohortFacts) -> Iterator[Choice]:
    """Choose whether a survival stage is fitted."""
    if facts.outcomes:
        yield Choice(
            "survival.task", "auto", f"{facts.outcomes} patients have a known outcome: `glioflow survival fit`"
        )


def plan_search(facts: CohortFacts, machine: Machine, chosen: Mapping[str, Any]) -> Iterator[Choice]:
    """Choose a space around the plan, whose first point is the plan itself."""
    rate = chosen["training.learning_rate"]
    space: dict[str, dict[str, object]] = {
        "training.learning_rate": {"kind": "float", "low": rate / 4, "high": rate * 4, "log": True},
        "training.sampling.augmentation": {"kind": "choice", "values": ["light", "strong"]},
        "training.ema": {"kind": "choice", "values": [None, 0.99]},
    }
    first = {
        "training.learning_rate": rate,
        "training.sampling.augmentation": chosen["training.sampling.augmentation"],
        "training.ema": None,
    }
    if chosen["target.kind"] == "binary":
        space["loss.name"] = {"kind": "choice", "values": ["dice_bce", "focal_tversky", "dice_batch"]}
        first["loss.name"] = "dice_bce"
    if not is_volumetric(facts)[0] and "model.weights" not in chosen:
        encoders = ["resnet34", "efficientnet-b0"] if machine.gpus else ["mobilenet_v2", "resnet18"]
        space["model.encoder"] = {"kind": "choice", "values": encoders}
        first["model.encoder"] = chosen["model.encoder"]
    yield Choice("search.trials", 16, "for `glioflow search` with this file")
    yield Choice("search.scheduler", "asha", "stops what falls behind")
    yield Choice("search.first", [first], "the plan itself")
    yield Choice("search.space", space, "what the plan is least sure of")
