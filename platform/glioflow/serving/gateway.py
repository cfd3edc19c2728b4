"""The endpoint on Ray Serve: a gateway that checks and decodes, and a predictor that holds one version.

A third deployment takes no requests; its only replica follows the registry's aliases.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from glioflow.bundle.answer import ModelCard
from glioflow.cluster import silence
from glioflow.cluster.scratch import clean_up
from glioflow.data.case import Case
from glioflow.errors import DOOR, ENDPOINT, RunFailed, UserError
from glioflow.json_values import JsonObject
from glioflow.serving.engine.admission import Admission, Full
from glioflow.serving.engine.answering import Answering, Reply, pixels_per_pass
from glioflow.serving.engine.batching import Batcher
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.http.refusals import Broken, Busy
from glioflow.serving.http.request_guard import log, quiet_libraries, start_log
from glioflow.serving.http.routes import make_api
from glioflow.serving.settings import ServeSettings, digest_of, values_in_memory
from glioflow.serving.versions.loaded import NoChampion, Versions, Wanted, find_wanted
from glioflow.serving.versions.registry_watcher import watch
from glioflow.tracking.addresses import STARTING_S

PROBES = 64  # requests without a study, answered at once
AT_ONCE = 8  # studies in one predictor: while one is in the network, others are preprocessed and measured


@serve.deployment(name="predictor", health_check_period_s=5, health_check_timeout_s=30)
class PredictorReplica:
    """Network, features and survival stage of one version, so that no answer mixes two versions."""

    def __init__(self, settings: ServeSettings) -> None:
        silence()
        start_log("predictor")
        _use_threads(settings)
        batcher = Batcher(pixels_per_pass())
        self._versions = Versions(batcher, log)
        self._admission = Admission(AT_ONCE, settings.limits.queued, values=values_in_memory())
        self._answering = Answering(self._versions, batcher, log, seed=os.getpid())
        self._swaps: set[asyncio.Task[None]] = set()
        self._missing: NoChampion | None = None  # reason for having no version yet; the watcher sets the first

    async def reconfigure(self, config: JsonObject) -> None:
        """Apply `config`; a replica that already answers keeps answering meanwhile."""
        wanted = Wanted.model_validate(config)
        if wanted.champion is None:  # the deployed file names only the model
            try:
                wanted = await asyncio.to_thread(find_wanted, wanted.name, wanted.trial, patience_s=STARTING_S)
            except NoChampion as error:
                log("waiting", reason=error.rule)
                self._missing = error if self._versions.champion is None else None
                return
        swap = asyncio.create_task(self._adopt(wanted))
        if self._versions.champion is None:
            await self._first(swap)
            return
        self._swaps.add(swap)
        swap.add_done_callback(self._swaps.discard)

    async def _first(self, swap: "asyncio.Task[None]") -> None:
        """Wait for a first version; a replica that already waits keeps waiting if that version is refused."""
        try:
            await swap
            self._missing = None
        except RunFailed as error:
            if self._missing is None:
                raise  # Serve tries again
            self._missing = NoChampion(str(error))

    async def _adopt(self, wanted: Wanted) -> None:
        """Load and check in a thread that ends together with its OpenMP threads; see `Batcher`."""
        pool = ThreadPoolExecutor(1, "adopt")
        try:
            await asyncio.get_running_loop().run_in_executor(pool, self._versions.adopt, wanted)
        finally:
            pool.shutdown(wait=False)

    def __del__(self) -> None:
        """Shut down cleanly; Serve calls this when it stops a replica."""
        self._answering.close()

    def check_health(self) -> None:
        """Fail if no version is loaded."""
        if self._versions.champion is None and self._missing is None:
            raise RuntimeError("no model is loaded")

    async def card(self) -> ModelCard | NoChampion:
        """Return the card of the served model."""
        return self._missing or self._answering.card()

    async def predict(self, case: Case, clinical: Mapping[str, object], **wanted: Any) -> Reply | UserError:
        """Answer for one study; see `Answering.answer`."""
        if self._missing is not None:
            return self._missing
        return await self._admission.run(
            lambda: self._answering.answer(case, clinical, **wanted), values=self._answering.values_of(case)
        )


def _use_threads(settings: ServeSettings) -> None:
    """Set torch's number of threads; Ray sets it to the CPUs that an actor reserves."""
    import torch

    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 1) // settings.max_replicas))


class _Remote:
    """The predictor's replicas, as the routes see them."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def predict(self, case: Case, clinical: Mapping[str, object], **wanted: Any) -> Reply | UserError:
        for _ in range(2):  # a study that crashes a replica may crash one more, but no third
            try:
                return await self._ask(self._handle.predict.remote(case, clinical, **wanted))  # type: ignore[no-any-return]
            except RayActorError:
                log("predictor_ended")
        raise Broken

    async def card(self) -> ModelCard:
        try:
            return await self._ask(self._handle.card.remote())  # type: ignore[no-any-return]
        except RayActorError:
            raise Busy from None

    async def _ask(self, answer: Any) -> Any:
        try:
            result = await answer
        except asyncio.CancelledError:
            answer.cancel()  # no caller waits for it any more
            raise
        except RayTaskError:
            raise
        except (BackPressureError, DeploymentUnavailableError):
            raise Busy from None
        if isinstance(result, NoChampion | Full):
            raise Busy(result.rule)
        return result


# On the head node, because the dashboard, which configures Serve, may listen only on loopback there.
_ON_THE_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}


@serve.deployment(name="watcher", num_replicas=1, ray_actor_options=_ON_THE_HEAD)
class Watcher:
    """The only process that changes the predictors' version, however the graph was deployed."""

    def __init__(self, settings: ServeSettings) -> None:
        silence()
        start_log("watcher")
        app = serve.get_replica_context().app_name
        self._thread = threading.Thread(target=watch, args=(app, settings, log), daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Fail if the watching thread has ended."""
        if not self._thread.is_alive():
            raise RuntimeError("the thread that watches the registry has ended")


@serve.deployment(name="gateway")
@serve.ingress()
class Gateway:
    """Checks and decodes requests; holds no model."""

    def __init__(self, predictor: DeploymentHandle, settings: ServeSettings, _watcher: DeploymentHandle) -> None:
        os.environ[DOOR] = ENDPOINT
        silence()
        start_log("gateway")
        quiet_libraries()
        clean_up()  # files of killed gateways
        self._predictor, self._settings = predictor, settings

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application that Serve runs at the address."""
        name = serve.get_replica_context().replica_tag
        feedback = Feedback(per_day=self._settings.feedback_per_day)
        return make_api(_Remote(self._predictor), self._settings, Metrics(name), feedback=feedback)


def __getattr__(name: str) -> Any:
    """Build `app` on first access: the graph from which `serve build` makes `deploy/serve.yaml`."""
    if name == "app":
        silence()  # the token may be given as a file
        return build(ServeSettings(token_sha256=digest_of(None), max_replicas=4, max_gateways=2))
    raise AttributeError(name)


def build(settings: ServeSettings) -> Any:
    """Return the graph; the settings are the `args` of a Serve application."""
    # Ray's decorators turn the classes into deployments, which type checkers cannot see.
    gateway, predictor, watcher = cast(Any, Gateway), cast(Any, PredictorReplica), cast(Any, Watcher)
    asked = predictor.options(
        user_config=Wanted(name=settings.name, trial=settings.trial).model_dump(mode="json"),
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        # The replica itself limits the studies, so that probes and cards never wait behind them.
        max_ongoing_requests=AT_ONCE + settings.limits.queued + PROBES,
        max_queued_requests=settings.limits.queued,
        **_scaling(settings.replicas, settings.max_replicas, AT_ONCE / 2),
    )
    studies = settings.limits.queued + AT_ONCE * settings.max_replicas
    return gateway.options(
        max_ongoing_requests=studies + PROBES,
        ray_actor_options={"num_cpus": 0.2},
        **_scaling(settings.gateways, settings.max_gateways, AT_ONCE),
    ).bind(asked.bind(settings), settings, watcher.bind(settings))


def _scaling(least: int, most: int, ongoing: float) -> JsonObject:
    if most <= least:
        return {"num_replicas": least}
    limits = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": ongoing}
    return {"autoscaling_config": limits}
