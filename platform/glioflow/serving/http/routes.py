"""The endpoint's routes for any `Model`: uploads in, JSON out, one form for every error; independent of Ray."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from glioflow.bundle.answer import AnswerJson, ModelCard, encode_probability
from glioflow.bundle.encoded_mask import MaskFormat, encode_mask
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE
from glioflow.data.case import Case
from glioflow.errors import TooLarge, UserError
from glioflow.json_values import JsonObject
from glioflow.page.files import add_page
from glioflow.reports.overlay import encode_overlay
from glioflow.serving.engine.answering import Reply, Which
from glioflow.serving.http.answers import check_format
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.http.feedback_routes import add_feedback
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.http.opened_studies import OpenedStudies
from glioflow.serving.http.refusals import Busy, answer_refusals
from glioflow.serving.http.request_guard import DOCS_FILES, Guard
from glioflow.serving.http.study_routes import add_study_routes
from glioflow.serving.http.uploads import read_saved
from glioflow.serving.settings import Limits, ServeSettings
from glioflow.version import __version__

_CARD_S = 5
_MAX_FIELDS, _MAX_TEXT_BYTES = 100, 32 << 20


class Model(Protocol):
    """A source of answers: a handle to the predictor's replicas, or a predictor in this process."""

    async def predict(self, case: Case, clinical: Mapping[str, object], **wanted: Any) -> Reply | UserError:
        """Answer one study, see `Answering.answer`; raises `Busy`."""

    async def card(self) -> ModelCard:
        """Return the card of what is served; raises `Busy`."""


class ErrorDetail(BaseModel):
    """What is wrong with a request: the rule, the value, what would have been accepted, and what to do.

    Attributes:
        rule: What is wrong, or what must hold.
        value: What was sent instead.
        choices: What would have been accepted, where that can be listed.
        code: The kind of mistake, for programs: `invalid`, `too-large`.
        hint: What to do about it.
        file: File that is wrong, if it is one of several.
    """

    rule: str
    value: Any = None
    choices: list[str] | None = None
    code: str | None = None
    hint: str | None = None
    file: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


_DESCRIPTIONS = {
    400: "The form cannot be read.",
    401: "The token is missing or wrong.",
    408: "The request did not arrive in time.",
    409: "Another correction of this patient came since the study was opened.",
    413: "More than the limits allow.",
    429: "The daily quota of feedback is used up.",
    421: "A host name to which this endpoint does not answer.",
    422: "The study cannot be read, or an option is invalid.",
    503: "Busy: try again after Retry-After seconds.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text} for status, text in _DESCRIPTIONS.items()
}


def make_api(model: Model, settings: ServeSettings, metrics: Metrics, *, feedback: Feedback | None = None) -> FastAPI:
    """Return the application, wrapped in its guard.

    Args:
        model: Source of answers.
        settings: Settings of the endpoint.
        metrics: Counters of requests.
        feedback: Store of corrected masks; None refuses them.
    """
    api = FastAPIOffline(
        static_url=DOCS_FILES,
        title="GlioFlow",
        version=__version__,
        description=f"Segments brain tumors in MRI with the promoted model and measures them. {NOT_FOR_CLINICAL_USE}",
        redoc_url=None,
        responses=_RESPONSES,
    )
    api.router.route_class = _route_with(settings.limits)
    answer_refusals(api)
    studies = OpenedStudies(settings)
    _add_predict(api, model, settings, metrics, studies)
    taking = feedback if settings.token_sha256 is not None else None
    _add_facts(api, model, metrics, takes_feedback=taking is not None)
    add_study_routes(api, studies)
    add_feedback(api, partial(_card_in_time, model), studies, taking)
    add_page(api)
    api.add_middleware(Guard, settings=settings, metrics=metrics)
    return api


class _MostFiles(int):
    """The maximum number of files of a form; exceeding it raises `TooLarge` instead of the parser's untyped error."""

    def __lt__(self, count: int) -> bool:
        if count > int(self):
            raise TooLarge(f"a study must have at most {int(self)} files")
        return False


class _MostText(int):
    """The maximum size of a form's text fields together, such as a mask as runs; the framework's limit is 1 MB each."""

    _before = _now = 0

    def __lt__(self, size: int) -> bool:
        if size < self._now:  # another field began
            self._before += self._now
        self._now = size
        if self._before + size > int(self):
            raise TooLarge(f"the text fields of a request must have at most {int(self)} bytes together")
        return False


def _route_with(limits: Limits) -> type[APIRoute]:
    """Return a route class that accepts as many files as a study may have, of which the framework accepts 1000."""

    class FormRequest(Request):
        async def body(self) -> bytes:
            content = await super().body()
            if len(content) > _MAX_TEXT_BYTES:  # JSON becomes objects of twenty times its size
                raise TooLarge(f"a request of JSON must have at most {_MAX_TEXT_BYTES} bytes", len(content))
            return content

        def form(self, **_: Any) -> Any:
            most_text: Any = _MostText(_MAX_TEXT_BYTES)
            return super().form(max_files=_MostFiles(limits.files), max_fields=_MAX_FIELDS, max_part_size=most_text)

    class FormRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_form(request: Request) -> Response:
                return await handle(FormRequest(request.scope, request.receive))

            return handle_form

    return FormRoute


def _add_predict(api: FastAPI, model: Model, settings: ServeSettings, metrics: Metrics, studies: OpenedStudies) -> None:
    @api.post("/v1/predict")
    async def predict(
        request: Request,
        files: Annotated[
            list[UploadFile], File(description="Slices (.tif, .png), NIfTI modalities, DICOM, or a .zip of them")
        ],
        clinical: Annotated[str | None, Form(description="JSON object of clinical values")] = None,
        channel: Annotated[
            list[str] | None, Form(description="NAME=SERIES: which series or file is pre, post, flair or t2")
        ] = None,
        mask: Annotated[
            str | None, Query(description="rle, nifti, dicom-seg, none; png, tiff: all labels as one")
        ] = None,
        overlay: Annotated[bool, Query(description="A picture of the slice with the most tumor")] = False,
        probability: Annotated[bool, Query(description="The probability of tumor in each voxel")] = False,
        version: Annotated[
            Which | None, Query(description="Which loaded version answers; by default the trial")
        ] = None,
    ) -> JSONResponse:
        """Segment one study; answer with mask, features and survival."""
        values = _json_object("clinical", clinical)
        wanted: dict[str, Any] = {"version": version, "probability": probability} if version or probability else {}
        began = time.perf_counter()
        read_study = partial(read_saved, limits=settings.limits, channels=channel or ())
        async with studies.opened(files, read_study) as case:
            format = check_format(mask, case)
            read = time.perf_counter()
            with metrics.in_flight.labels(metrics.gateway).track_inprogress():
                reply = await _predict_in_time(model.predict(case, values, **wanted), settings.limits.timeout_s)
            predicted = time.perf_counter()
            answer: AnswerJson = {**reply.answer, "request_id": request.state.request_id}
            await _add_pictures(answer, reply, case, format, overlay=overlay)
        done = time.perf_counter()
        answer["timing_ms"] = {
            "read": _milliseconds(began, read),
            **answer["timing_ms"],
            "encode": _milliseconds(predicted, done),
            "total": _milliseconds(began, done),
        }
        metrics.predicted(answer, reply.facts)
        request.state.facts = {
            "slices": case.shape[0],
            "version": answer["model"]["version"],
            "detected": answer["tumor"]["detected"],
            "num_warnings": len(answer["study"]["warnings"]),
        }
        return JSONResponse(answer)


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)


async def _predict_in_time(predicting: Awaitable[Reply | UserError], timeout_s: float) -> Reply:
    """Return the predictor's reply, or raise its refusal; raises `Busy` if none comes in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reply = await predicting
    except TimeoutError:
        raise Busy(f"no answer came within {timeout_s:g} s; try again") from None
    if isinstance(reply, UserError):
        raise reply
    return reply


async def _add_pictures(answer: AnswerJson, reply: Reply, case: Case, format: MaskFormat, *, overlay: bool) -> None:
    """Encode mask, probability and overlay in threads: each takes as long as many other requests."""
    answer["mask"] = await asyncio.to_thread(encode_mask, reply.labels, case, format, reply.legend)
    if reply.probability is not None:
        answer["probability"] = await asyncio.to_thread(encode_probability, reply.probability)
    if overlay:
        answer["overlay"] = await asyncio.to_thread(encode_overlay, reply.labels, case)


def _add_facts(api: FastAPI, model: Model, metrics: Metrics, *, takes_feedback: bool) -> None:
    @api.get("/v1/model")
    async def card() -> JSONResponse:
        """Return the champion's card: version, metrics, training cohort, the input it needs, how it computes here."""
        return JSONResponse({**await _card_in_time(model), "feedback": takes_feedback})

    @api.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> PlainTextResponse:
        """Answer that the gateway is alive."""
        return PlainTextResponse("ok")

    @api.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> Response:
        """Answer that a model is loaded, or 503."""
        card = await _card_in_time(model)
        return PlainTextResponse(f"ready: {card['model']['name']} {card['model']['version']}")

    @api.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Return counters and times for Prometheus."""
        text = metrics.text(await _card_soon(model))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _card_soon(model: Model) -> ModelCard | None:
    try:
        return await _card_in_time(model)
    except Exception:  # no card is available
        return None


async def _card_in_time(model: Model) -> ModelCard:
    """Return the card; raises `Busy` if no predictor answers in time."""
    try:
        return await asyncio.wait_for(model.card(), _CARD_S)
    except TimeoutError:
        raise Busy(f"no predictor answered within {_CARD_S} s: none has started yet, or it does not respond") from None


def _json_object(field: str, text: str | None) -> JsonObject:
    if not text:
        return {}
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"the field {field!r} must be a JSON object", text[:80])
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
