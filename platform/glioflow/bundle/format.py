"""The files of a model version: `model.json`, `weights.safetensors`, `survival.json` if it has one. No pickle."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glioflow import atomic
from glioflow.config.experiment import EntrySettings, Experiment
from glioflow.data.checks.channel_looks import PairLooks
from glioflow.data.checks.drift import InputStatistics
from glioflow.data.preprocessing.intensity_steps import UnitScale
from glioflow.data.preprocessing.pipeline import Step
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError, one_line
from glioflow.evaluation import PostprocessSettings, VolumeInterval
from glioflow.evaluation.settings import InferenceSettings
from glioflow.models import ModelSettings, build_network
from glioflow.models.weights import misfit
from glioflow.survival import SurvivalStage
from glioflow.validation import first_problem
from glioflow.version import __version__

if TYPE_CHECKING:
    import torch

FORMAT = 1
MODEL, WEIGHTS, SURVIVAL = "model.json", "weights.safetensors", "survival.json"
LICENSE = "LICENSE"
# Files of an exported or shipped bundle that only people and sha256sum read.
BESIDE = ("card.md", "card.html", "SHA256SUMS", LICENSE)
# Key of the digest of all other keys of `model.json`: it detects damage and manual edits, not attacks.
SEAL = "seal"


class Origin(BaseModel):
    """Where a model comes from.

    Attributes:
        experiment: Name of the experiment.
        cohort_format: Format of the training cohort.
        fingerprint: Fingerprint of the prepared cohort.
        source_fingerprint: Fingerprint of the cohort's files alone.
        split: Digest of train, val and test.
        test: Digest of the test cases alone.
        num_patients: Number of patients in each part of the split.
        fitted_on: The part of the split on which each setting was chosen.
        created: Time of creation, UTC, ISO 8601.
        version: Version of GlioFlow.
        labels: Names of the labels of the training masks, after the step `label_map`; empty if they are not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    experiment: str
    cohort_format: str
    fingerprint: str
    source_fingerprint: str
    split: str
    test: str
    num_patients: dict[str, int]
    fitted_on: dict[str, str]
    created: str
    version: str = __version__
    labels: dict[int, str] = Field(default_factory=dict)


class Fold(BaseModel):
    """A member of an ensemble.

    Attributes:
        run_id: Id of the training run.
        temperature: Its logits are divided by it before they become probabilities.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    run_id: str
    temperature: float


class Description(BaseModel):
    """`model.json`: everything that prediction needs besides the weights.

    Attributes:
        format: Version of this file's format.
        model: The network, or each one of an ensemble.
        folds: The networks of a cross-validation whose mean probability is the answer; empty for a single network.
        target: The task.
        preprocess: Preprocessing steps, the same as in training.
        inference: How a case is predicted.
        entry: Rules for studies that are refused, and for those that are answered with a warning.
        postprocess: Threshold and clean-up, as chosen on validation patients.
        channels: Channels that a study must have, in order.
        network_channels: Channels that preprocessing makes from them.
        origin: Origin of the model.
        flair_threshold: Threshold of the FLAIR baseline, from `fit_flair_threshold` on training patients.
        input_statistics: Statistics of the prepared training images, from `fit_input_statistics`.
        channel_looks: How the channels of the training images differ, as `fit_channel_looks` gave it; None in old ones.
        input_sizes: Height and width of most training images as the network sees them, the most frequent first.
        volume_interval: Around the predicted tumor volume, from a cross-validation's out-of-fold predictions.
        metrics: Metrics on validation patients, and on test patients if they were measured.
        num_parameters: Number of parameters of the network.
        files: Digest of every other file of the bundle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    model: ModelSettings
    folds: tuple[Fold, ...] = ()
    target: TargetSettings
    preprocess: tuple[Step, ...]
    inference: InferenceSettings
    entry: EntrySettings = EntrySettings()
    postprocess: PostprocessSettings
    channels: tuple[str, ...]
    network_channels: tuple[str, ...]
    origin: Origin
    flair_threshold: float | None = None
    input_statistics: InputStatistics | None = None
    channel_looks: tuple[PairLooks, ...] | None = None
    input_sizes: tuple[tuple[int, int], ...] = ()
    volume_interval: VolumeInterval | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)
    num_parameters: int
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory; the network is on the CPU and in evaluation mode."""

    description: Description
    network: "torch.nn.Module"
    survival: SurvivalStage | None


def describe(experiment: Experiment, **values: Any) -> Description:
    """Return the description of a model trained by `experiment`; `values` are the fields that are not settings."""
    resolved = experiment.resolved
    given = {
        "model": resolved.model,
        "target": resolved.target,
        "preprocess": resolved.preprocess,
        "inference": resolved.inference,
        "entry": resolved.entry,
    }
    return Description(**{**given, **values})


def save(folder: Path, description: Description, weights: "Mapping[str, torch.Tensor]") -> Description:
    """Write a new bundle to `folder`, which must not exist; returns the description with its files' digests."""
    from safetensors.torch import save as to_bytes

    with atomic.new_folder(folder) as working:
        # As bytes, since safetensors' own error on a full disk has no errno.
        (working / WEIGHTS).write_bytes(to_bytes({name: value.contiguous() for name, value in weights.items()}))
        sealed = description.model_copy(update={"files": {WEIGHTS: digest(working / WEIGHTS)}})
        _write_description(working, sealed)
    return sealed


def with_stage(
    folder: Path,
    out: Path,
    *,
    survival: SurvivalStage | None,
    metrics: Mapping[str, float | None],
    volume_interval: VolumeInterval | None = None,
) -> None:
    """Write a copy of the bundle in `folder` to `out` with another survival stage, volume interval and more metrics."""
    description = read_description(folder)
    files = {WEIGHTS: description.files[WEIGHTS]}
    with atomic.new_folder(out) as working:
        shutil.copyfile(folder / WEIGHTS, working / WEIGHTS)
        if survival is not None:
            atomic.write_json(working / SURVIVAL, survival.to_json())
            files[SURVIVAL] = digest(working / SURVIVAL)
        added = {"files": files, "metrics": {**description.metrics, **metrics}, "volume_interval": volume_interval}
        _write_description(working, description.model_copy(update=added))


def read_description(folder: Path) -> Description:
    """Read `model.json` alone, checking it against its seal.

    Raises:
        UserError: If it is missing, changed, or not in this version's format.
    """
    path = folder / MODEL
    if not path.is_file():
        hint = "give the folder that `glioflow export` wrote"
        raise UserError(f"{folder} is not a bundle: it has no {MODEL}", folder, hint=hint)
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
    except ValueError as error:
        raise UserError(f"GlioFlow did not write this {MODEL}: {error}", file=path) from None
    if values.get("format") != FORMAT:
        rule = f"the bundle must have format {FORMAT}, which this version of GlioFlow reads"
        raise UserError(rule, values.get("format"), file=path)
    if values.pop(SEAL, None) != _seal(values):
        raise UserError(f"{MODEL} was changed since the bundle was written", file=path, hint="export the bundle again")
    # Versions before `max_drift` only warned about intensities, and their bundles must keep working.
    values["entry"] = {"max_drift": None, **values.get("entry", {})}
    try:
        return _as_trained(Description.model_validate_json(json.dumps(values)))
    except ValidationError as error:
        rule = f"GlioFlow did not write this {MODEL}: {first_problem(error, values)}"
        raise UserError(rule, file=path) from None


def _as_trained(description: Description) -> Description:
    """Make the step `unit` accept images in 0..1 if the training images were, as earlier versions allowed."""
    tops = [known["p99"][0] for known in (description.input_statistics or {}).values() if "p99" in known]
    if not tops or max(tops) > (1 + 1e-6) / 255:
        return description
    steps = (step.of_unit_range() if isinstance(step, UnitScale) else step for step in description.preprocess)
    return description.model_copy(update={"preprocess": tuple(steps)})


def _write_description(folder: Path, description: Description) -> None:
    values = description.model_dump(mode="json")
    atomic.write_json(folder / MODEL, {**values, SEAL: _seal(values)})


def _seal(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load(folder: Path) -> Bundle:
    """Read a complete bundle, checking every file against its digest.

    Raises:
        UserError: If a file is missing, unexpected or changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = check_files(folder)
    names = {path.name for path in folder.iterdir()} - set(BESIDE) | set(description.files)
    if foreign := names - {MODEL, WEIGHTS, SURVIVAL} or names - {MODEL} - set(description.files):
        rule = f"{min(foreign)} does not belong to the bundle, which may hold {MODEL}, {WEIGHTS} and {SURVIVAL} only"
        raise UserError(rule, min(foreign), file=folder)
    network = _build(description)
    try:
        state = load_file(str(folder / WEIGHTS))
    except (ValueError, SafetensorError) as error:
        rule = "the weights of the bundle cannot be read"
        raise UserError(rule, one_line(error), file=folder / WEIGHTS, hint="export the bundle again") from None
    try:
        network.load_state_dict(state)
    except RuntimeError:
        rule = f"the weights do not fit the network of {MODEL}, {description.model.architecture}: "
        raise UserError(rule + misfit(network, state), file=folder / WEIGHTS, hint="export the bundle again") from None
    survival = None
    if SURVIVAL in description.files:
        survival = SurvivalStage.from_json(atomic.read_json(folder / SURVIVAL))
    return Bundle(description, network.eval(), survival)


def _build(description: Description) -> "torch.nn.Module":
    networks = [
        build_network(
            description.model,
            in_channels=len(description.network_channels),
            num_outputs=description.target.num_outputs,
            load_weights=False,
        )
        for _ in description.folds or (None,)
    ]
    if not description.folds:
        return networks[0]
    from glioflow.models.side_by_side import SideBySide

    temperatures = [fold.temperature for fold in description.folds]
    return SideBySide(networks, temperatures, softmax=description.target.kind == "multiclass")


def check_files(folder: Path) -> Description:
    """Read the description of a bundle, and compare the digests of its files; raises `UserError` as `load` does."""
    description = read_description(folder)
    for name in sorted({WEIGHTS, *description.files}):
        if not (folder / name).is_file() or digest(folder / name) != description.files.get(name):
            raise UserError(f"{name} is missing or was changed since the bundle was written", name, file=folder)
    return description


def digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(folder: Path) -> str:
    """Return the digest of a whole bundle: that of its description, which contains the digests of its files."""
    return digest(folder / MODEL)
