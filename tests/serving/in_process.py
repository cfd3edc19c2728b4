"""The endpoint over a predictor in this process, for tests: everything but Ray."""

from typing import Any

from fastapi.testclient import TestClient

from bundles import Bright, describe
from glioflow.serving.engine.admission import Admission, Full
from glioflow.serving.engine.answering import Answering
from glioflow.serving.engine.batching import BatchedPredictor, Batcher
from glioflow.serving.engine.selection import Engine
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.http.refusals import Busy
from glioflow.serving.http.request_guard import log, start_log
from glioflow.serving.http.routes import make_api
from glioflow.serving.settings import ServeSettings
from glioflow.serving.versions.loaded import Served, VersionId, Versions, Wanted

ENGINE = Engine("torch", "cpu", "fp32", "channels_last", 1.0)


def version(number: int, name: str = "glioma") -> VersionId:
    return VersionId(name=name, version=number, run_id="r")


def served(
    experiment: Any, number: int = 1, network: Any = None, batcher: Batcher | None = None, **fields: Any
) -> Served:
    predictor = BatchedPredictor(describe(experiment, **fields), network or Bright(above=0.3))
    predictor.batcher = batcher
    return Served(version(number), predictor, ENGINE)


class Here:
    """A predictor replica without Ray."""

    def __init__(self, loaded: Served, *, at_once: int = 8, waiting: int = 32) -> None:
        self.admission = Admission(at_once, waiting)
        batcher = Batcher(2**18)
        loaded.predictor.batcher = batcher
        self.versions = Versions(batcher, log, load=lambda wanted, batcher: loaded)
        self.versions.adopt(Wanted(champion=loaded.id))
        self.answering = Answering(self.versions, batcher, log)

    async def predict(self, case: Any, clinical: Any, **wanted: Any) -> Any:
        reply = await self.admission.run(lambda: self.answering.answer(case, clinical, **wanted))
        if isinstance(reply, Full):
            raise Busy(reply.rule)
        return reply

    async def card(self) -> Any:
        return self.answering.card()


def client(model: Any, settings: ServeSettings | None = None, **options: Any) -> TestClient:
    settings = settings or ServeSettings()
    start_log("test")
    api = make_api(model, settings, Metrics("g"), feedback=Feedback(per_day=settings.feedback_per_day))
    return TestClient(api, raise_server_exceptions=False, **options)
