"""A model, loaded and ready to answer: a bundle in this process, several as an ensemble, or an endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.api.answer import Answer
from glioflow.api.arguments import checked
from glioflow.api.client import Client
from glioflow.api.inputs import model_name, wrong_type
from glioflow.api.studies import image_files, read_any_study
from glioflow.bundle import Description
from glioflow.bundle.answer import ModelCard, ModelId, answer_to_json
from glioflow.bundle.encoded_mask import decode_mask, encode_mask, legend_of, legend_of_target
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE, Predictor
from glioflow.bundle.starter import STARTER
from glioflow.bundle.study_checks import conform
from glioflow.cluster.scratch import study_folder
from glioflow.data.case import Case
from glioflow.data.targets import TargetSettings
from glioflow.errors import RunFailed, UserError
from glioflow.reports.numbers import interval, number
from glioflow.reports.tables import Table, tables_to_html
from glioflow.runs.model_loading import as_one, open_members
from glioflow.serving.settings import own_token

Study = str | Path | Sequence[str | Path] | Case | NDArray[np.generic]


class Model:
    """A model that answers about studies; `load` gives one."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The MR sequences that a study must have, in the model's order."""
        raise NotImplementedError

    @checked
    def predict(
        self,
        study: Study,
        *,
        clinical: Mapping[str, object] | None = None,
        channels: Sequence[str] | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> Answer:
        """Segment one study and measure its tumor.

        Args:
            study: A case folder, a file, a zip, several files (TIFF or PNG slices, NIfTI modalities, DICOM), a `Case`,
                or an array (S, H, W, C), of a lone slice (H, W, C).
            clinical: Clinical values by column name, for the survival stage; missing values are imputed and named.
            channels: Names of an array's channels; None takes the model's.
            spacing_mm: Spacing of an array's voxels along S, H, W in millimeters; None if unknown.

        Raises:
            UserError: If the study cannot be read, lacks a channel that the model needs, or is no array but `channels`
                or `spacing_mm` is given.
            RunFailed: If an endpoint does not answer.
        """
        if not isinstance(study, np.ndarray) and (channels is not None or spacing_mm is not None):
            name = "spacing_mm" if channels is None else "channels"
            hint = "leave it out" if channels is None else "gf.predict_studies takes channels for files"
            raise UserError(f"{name} is only for an array", f"a study of type {type(study).__name__}", hint=hint)
        _check_clinical(clinical)
        opened = read_any_study(study, channels=channels or self.channels, spacing_mm=spacing_mm)
        answer = self._answer(opened.case, clinical or {})
        return replace(answer, _files=opened.folder)

    def _answer(self, case: Case, clinical: Mapping[str, object]) -> Answer:
        raise NotImplementedError

    def _about(self) -> "_About":
        raise NotImplementedError

    def _repr_html_(self) -> str:
        about = self._about()
        version = "" if about.id["version"] is None else f" version {about.id['version']}"
        rows: list[list[object]] = [
            ["takes", ", ".join(self.channels)],
            ["answers with", ", ".join(f"{value} {name}" for value, name in about.labels.items())],
            *_scores(about.metrics),
            ["network", f"{about.architecture}, {about.num_parameters:,} parameters"],
            ["trained by", about.experiment],
        ]
        unscored = about.metrics.get("test/dice_mean") is None
        notes = ["It was not scored on test patients."] if unscored else []
        return tables_to_html([Table(f"{about.id['name']}{version}", ["", ""], rows)], [*notes, NOT_FOR_CLINICAL_USE])


def _check_clinical(values: object) -> None:
    if values is not None and not isinstance(values, Mapping):
        hint = "dict(row) makes them from a pandas row" if hasattr(values, "to_dict") else None
        raise wrong_type("clinical must be values by column name, such as {'age_years': 45}", values, hint)


@dataclass(frozen=True)
class _About:
    """What a notebook shows of a model."""

    id: ModelId
    labels: Mapping[int, str]
    metrics: Mapping[str, float | None]
    architecture: str
    num_parameters: int
    experiment: str


def _scores(metrics: Mapping[str, float | None]) -> list[list[object]]:
    """Return the mean Dice of each part of the patients that was measured, with its 95 % interval."""
    parts = {"test": "test", "oof": "cross-validated", "val": "validation"}
    rows: list[list[object]] = []
    for part, name in parts.items():
        if (mean := metrics.get(f"{part}/dice_mean")) is not None:
            ends = (metrics.get(f"{part}/dice_ci95_{end}") for end in ("low", "high"))
            rows.append([f"mean Dice, {name} patients", f"{number(mean)} [{interval(*ends)}]"])
    return rows


class LoadedModel(Model):
    """A model in this process.

    Attributes:
        id: Its name, and its registered version and run, if it has them.
        predictor: Computes the masks.
    """

    def __init__(self, id: ModelId, predictor: Predictor) -> None:
        """Take a predictor under the name that its answers bear."""
        self.id, self.predictor = id, predictor

    @property
    def description(self) -> Description:
        """The bundle's description of the model."""
        return self.predictor.description

    @property
    def channels(self) -> tuple[str, ...]:
        """The MR sequences that a study must have, in the model's order."""
        return self.description.channels

    def __repr__(self) -> str:
        version = "" if self.id["version"] is None else f" version {self.id['version']}"
        network = self.description.model.architecture
        return f"<Model {self.id['name']}{version}: {network}, {self.description.num_parameters:,} parameters>"

    def _about(self) -> _About:
        model = self.description
        made_by = (model.model.architecture, model.num_parameters, model.origin.experiment)
        return _About(self.id, legend_of(model).names, model.metrics, *made_by)

    def _answer(self, case: Case, clinical: Mapping[str, object]) -> Answer:
        conformed = conform(case, self.description)
        prediction = self.predictor.predict(conformed, clinical=clinical)
        labels = prediction.segmentation.labels
        json = answer_to_json(conformed, prediction, self.id)
        json["mask"] = encode_mask(labels, conformed, "rle", legend_of(self.description))
        return Answer(conformed, labels, json, prediction.segmentation.tumor_probability)


class ServedModel(Model):
    """The model behind an endpoint: studies are sent there."""

    def __init__(self, client: Client) -> None:
        """Ask the endpoint of `client`."""
        self.client = client
        self._card: ModelCard | None = None

    @property
    def card(self) -> ModelCard:
        """The endpoint's card of the model that it serves."""
        self._card = self._card or self.client.model()
        return self._card

    @property
    def channels(self) -> tuple[str, ...]:
        """The MR sequences that a study must have, in the model's order."""
        return tuple(self.card["input"]["channels"])

    def __repr__(self) -> str:
        return f"<Model at {self.client.url}>"

    def _about(self) -> _About:
        card = self.card
        origin = card["origin"]
        tissues = {int(value): name for value, name in origin.get("labels", {}).items()}
        legend = legend_of_target(TargetSettings.model_validate(card["target"]), origin["cohort_format"], tissues)
        made_by = (str(card["architecture"]["architecture"]), card["num_parameters"], origin["experiment"])
        return _About(card["model"], legend.names, card["metrics"], *made_by)

    def _repr_html_(self) -> str:
        try:
            return super()._repr_html_()
        except RunFailed as error:  # which a notebook would show as a traceback
            return tables_to_html([], [repr(self), str(error)])

    def _answer(self, case: Case, clinical: Mapping[str, object]) -> Answer:
        with study_folder() as folder:
            files = image_files(case, Path(folder))
            json = self.client.predict(files, clinical=clinical, channels=dict(case.chosen), mask="rle")
        # The endpoint saw only the images, so what was left out here is added.
        json["study"]["warnings"] = list(dict.fromkeys([*case.warnings, *json["study"]["warnings"]]))
        return Answer(case, decode_mask(json["mask"]), json)


def load(model: Any, *, device: str = "auto") -> Model:
    """Load a model.

    Args:
        model: A registered model (`NAME`, `NAME@alias`, `models:/NAME/3`), a run's id, a bundle's folder or zip, the
            result of `train`, `register` or `promote`, an endpoint's `http://` URL, or `starter`, which ships with
            GlioFlow. A list of them, or names separated by commas, is an ensemble.
        device: Device of the forward pass, such as `cpu` or `cuda:1`; `auto` takes a GPU if there is one.

    Raises:
        UserError: If the model or the device does not exist, or the bundle is damaged.
    """
    name = model_name(model)
    if name.startswith(("http://", "https://")):
        return ServedModel(Client(name, token=own_token()))
    members = open_members(name, device=device)
    predictor, first = as_one(members), members[0]
    if len(members) > 1:
        return LoadedModel({"name": name, "version": None, "run_id": None}, predictor)
    if first.version is None:
        made_by = STARTER if name == STARTER else predictor.description.origin.experiment
        return LoadedModel({"name": made_by, "version": None, "run_id": first.run_id}, predictor)
    version = first.version
    return LoadedModel({"name": version.name, "version": version.version, "run_id": version.run_id}, predictor)
