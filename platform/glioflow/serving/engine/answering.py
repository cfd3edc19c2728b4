"""Answers for studies by the current version, with an optional challenger; independent of Ray and HTTP."""

import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle.answer import AnswerJson, ModelCard, OriginJson, answer_to_json
from glioflow.bundle.encoded_mask import Legend, legend_of
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE
from glioflow.bundle.study_checks import conform
from glioflow.data.case import Case
from glioflow.data.preprocessing.pipeline import most_values
from glioflow.errors import UserError
from glioflow.evaluation.settings import CPU_PIXELS
from glioflow.serving.engine.batching import Batcher
from glioflow.serving.versions.loaded import Served, Versions
from glioflow.serving.versions.shadow_trial import Comparison, Diary, Watch, agreement

Which = Literal["champion", "challenger"]

# A forward pass on a GPU uses up to half of its free memory, and at most this many slices of this size.
MAX_GPU_SLICES, SLICE_PIXELS = 256, 256 * 256


@dataclass(frozen=True)
class Reply:
    """An answer with its mask (S, H, W), label names, facts for metrics, and the probability of tumor.

    `probability` (S, H, W) is scaled so that 255 means 1; None if it was not requested.
    """

    answer: AnswerJson
    labels: NDArray[np.uint8]
    legend: Legend
    facts: dict[str, Any] = field(default_factory=dict)
    probability: NDArray[np.uint8] | None = None


class Answering:
    """The work of a predictor replica, without Ray."""

    def __init__(self, versions: Versions, batcher: Batcher, say: Callable[..., None], *, seed: int = 0) -> None:
        """Answer with the versions in `versions` at the time of each request."""
        self.versions, self._batcher, self._say = versions, batcher, say
        self._chances = random.Random(seed)
        self._watch: Watch | None = None
        self._aside = ThreadPoolExecutor(1, "shadow")
        self._asides = 0
        self.diary = Diary()

    def answer(
        self, case: Case, clinical: Mapping[str, object], *, version: Which | None = None, probability: bool = False
    ) -> Reply | UserError:
        """Answer one study; return a user's mistake instead of raising it, because Ray would wrap it.

        Args:
            case: The study.
            clinical: Clinical values by name.
            version: The loaded version that answers; None lets the trial of a challenger decide.
            probability: Whether to return the probability of tumor too.
        """
        if version is not None:
            return self._ask_for(version, case, clinical, probability)
        champion, challenger, chance = self.versions.champion, self.versions.challenger, self._chances.random()
        assert champion is not None
        watch, gave_up = self._watch_of(champion, challenger), False
        if challenger and watch and watch.goes_to(chance, watch.trial.canary):
            try:
                reply = self._ask(challenger, case, clinical, probability=probability)
            except Exception:  # if a challenger fails or refuses, the champion answers
                gave_up = True
            else:
                self._beside(watch, champion, case, reply, challenger_answered=True)
                return reply
        try:
            reply = self._ask(champion, case, clinical, probability=probability)
        except UserError as error:  # the study's fault, not the challenger's
            return error
        if watch and gave_up:
            watch.failed()
        if challenger and watch and watch.goes_to(self._chances.random(), watch.trial.shadow):
            self._beside(watch, challenger, case, reply, challenger_answered=False)
        return reply

    def values_of(self, case: Case) -> int:
        """Return the most values of a study while the champion computes it: small images may be enlarged."""
        champion = self.versions.champion
        return case.image.size if champion is None else most_values(case, champion.predictor.description.preprocess)

    def _ask_for(
        self, version: Which, case: Case, clinical: Mapping[str, object], probability: bool
    ) -> Reply | UserError:
        served = self.versions.champion if version == "champion" else self.versions.challenger
        if served is None:
            hint = "start the endpoint with --shadow, and give a version the alias challenger"
            return UserError("no challenger is loaded", version, ["champion"], hint=hint)
        try:
            return self._ask(served, case, clinical, probability=probability)
        except UserError as error:
            return error

    def close(self) -> None:
        """End the background work, and record the trial of a challenger."""
        self._aside.shutdown(wait=False, cancel_futures=True)
        self.diary.close()

    def card(self) -> ModelCard:
        """Return all facts about the served versions."""
        served = self.versions.champion
        assert served is not None
        description, survival = served.predictor.description, served.predictor.survival
        state = self.versions.state()
        if self._watch is not None:
            state["stepped_back"] = self._watch.stepped_back
        return {
            "model": served.id.model_id,
            "format": description.format,
            "architecture": description.model.model_dump(mode="json"),
            "num_parameters": description.num_parameters,
            "input": {
                "channels": list(description.channels),
                "network_channels": list(description.network_channels),
                "preprocess": [step.model_dump(mode="json") for step in description.preprocess],
                "statistics": description.input_statistics,
                "entry": description.entry.model_dump(mode="json"),
            },
            "inference": description.inference.model_dump(mode="json"),
            "target": description.target.model_dump(mode="json"),
            "postprocess": description.postprocess.model_dump(mode="json"),
            "metrics": description.metrics,
            "fingerprint": description.origin.fingerprint,
            "origin": cast(OriginJson, description.origin.model_dump(mode="json")),
            "survival": None
            if survival is None
            else survival.model_dump(
                mode="json",
                include={"task", "num_patients", "num_events", "primary_metric", "metrics", "baselines"}
                | {"beats_baselines", "warnings"},
            ),
            "serving": state,
            "notice": NOT_FOR_CLINICAL_USE,
        }

    def _ask(self, served: Served, case: Case, clinical: Mapping[str, object], *, probability: bool = False) -> Reply:
        queued, predictor = self._batcher.queued, served.predictor
        case = conform(case, predictor.description)
        prediction = predictor.predict(case, clinical=clinical)
        answer = answer_to_json(case, prediction, served.id.model_id)
        facts = {
            "queued": queued,
            "batch": self._batcher.passes[-1] if self._batcher.passes else None,
            "drift": prediction.drift,
        }
        labels, legend = prediction.segmentation.labels, legend_of(predictor.description)
        chances = prediction.segmentation.tumor_probability if probability else None
        return Reply(answer, labels, legend, facts, None if chances is None else as_bytes(chances))

    def _watch_of(self, champion: Served, challenger: Served | None) -> Watch | None:
        if challenger is None:
            if self._watch is not None:
                self.diary.end()
            self._watch = None
            return None
        names = [f"{served.id.name}/{served.id.version}" for served in (champion, challenger)]
        old, trial = self._watch, self.versions.trial
        if old is None or [old.champion, old.challenger] != names or old.trial != trial:
            self._watch = Watch(names[0], names[1], trial, self._say)
        return self._watch

    def _beside(self, watch: Watch, other: Served, case: Case, reply: Reply, *, challenger_answered: bool) -> None:
        """Ask the other version too, after the answer, one study at a time; skip this if studies are waiting."""
        if self._asides >= 4:
            return
        self._asides += 1

        def ask() -> None:
            began = time.perf_counter()
            try:
                labels = self._ask(other, case, {}).labels
            except Exception:  # count the challenger's failure; no caller waits for it
                if not challenger_answered:
                    watch.failed()
                return
            finally:
                self._asides -= 1
            other_ms, reply_ms = (time.perf_counter() - began) * 1000, sum(reply.answer["timing_ms"].values())
            times = (other_ms, reply_ms) if challenger_answered else (reply_ms, other_ms)
            comparison = Comparison(agreement(labels, reply.labels), *times)
            watch.compared(comparison)
            self.diary.write(watch.champion, watch.challenger, vars(comparison))

        self._aside.submit(ask)


def as_bytes(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return probabilities in [0, 1] as bytes, 255 for 1."""
    return np.asarray(np.rint(np.clip(probability, 0, 1) * 255), np.uint8)


def pixels_per_pass() -> int:
    """Return the most pixels, over all slices, for one forward pass on this machine's device."""
    import torch

    if not torch.cuda.is_available():
        return CPU_PIXELS
    free, _ = torch.cuda.mem_get_info()
    slices = int(free / 2 / (256 * 2**20))  # about 256 MiB per slice in a forward pass
    return max(CPU_PIXELS, min(MAX_GPU_SLICES, slices) * SLICE_PIXELS)
