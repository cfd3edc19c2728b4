"""The endpoint: two deployments, a gateway that checks and decodes, and a predictor that holds one whole version."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from glioflow import __version__
from glioflow.cluster import silence
from glioflow.data.case import Case
from glioflow.errors import UserError
from glioflow.prediction import NOT_FOR_CLINICAL_USE, Predictor
from glioflow.serving.answers import check_format, encode_mask, to_json
from glioflow.serving.settings import Limits
from glioflow.serving.uploads import TooLarge, read_uploads

api = FastAPI(
    title="GlioFlow",
    version=__version__,
    description=f"Segments brain tumors in MRI with the promoted model and measures them. {NOT_FOR_CLINICAL_USE}",
)


def _error(status: int, rule: str, value: Any = None, choices: list[str] | None = None) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": {"rule": rule, "value": value, "choices": choices}}, status, headers=headers)


# Ray packs the ingress when it is decorated: what its methods use stands before it.
def _clinical(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        values = json.loads(text)
    except ValueError:
        raise UserError("the field 'clinical' is a JSON object", text[:80]) from None
    if not isinstance(values, dict):
        raise UserError("the field 'clinical' is a JSON object", text[:80])
    return values


@api.exception_handler(UserError)
async def _user_error(request: Request, error: UserError) -> JSONResponse:
    return _error(413 if isinstance(error, TooLarge) else 422, error.rule, error.value, error.choices)


@api.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return _error(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


@api.exception_handler(HTTPException)
async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    return _error(error.status_code, str(error.detail))


@serve.deployment(name="predictor", max_ongoing_requests=4, health_check_period_s=5, health_check_timeout_s=30)
class PredictorReplica:
    """Network, features and survival stage of one version: no answer is half of one and half of another."""

    def __init__(self) -> None:
        silence()
        self._lock = asyncio.Lock()
        self._model: tuple[Predictor, dict[str, Any]] | None = None

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load the version that `config` names, aside, then switch."""
        loaded = await asyncio.to_thread(_load, config)
        self._model = loaded

    def check_health(self) -> None:
        """Fail where no version is loaded."""
        if self._model is None:
            raise RuntimeError("no model is loaded")

    async def card(self) -> dict[str, Any]:
        """Say what is served."""
        assert self._model is not None
        predictor, model = self._model
        said = predictor.description
        return {
            "model": model,
            "architecture": said.model.model_dump(mode="json"),
            "num_parameters": said.num_parameters,
            "input": {
                "channels": list(said.channels),
                "preprocess": [s.model_dump(mode="json") for s in said.preprocess],
            },
            "target": said.target.model_dump(mode="json"),
            "postprocess": said.postprocess.model_dump(mode="json"),
            "metrics": said.metrics,
            "origin": said.origin.model_dump(mode="json"),
            "survival": None if predictor.survival is None else predictor.survival.task,
            "notice": NOT_FOR_CLINICAL_USE,
        }

    async def predict(
        self, case: Case, clinical: dict[str, Any]
    ) -> tuple[dict[str, Any], NDArray[np.uint8]] | UserError:
        """Answer for one study, with its mask; one forward pass at a time, the network uses all cores it has.

        A user's mistake is returned, not raised: Ray would wrap it.
        """
        assert self._model is not None
        predictor, model = self._model
        try:
            async with self._lock:
                prediction = await asyncio.to_thread(predictor.predict, case, clinical=clinical)
        except UserError as error:
            return error
        return to_json(case, prediction, model), prediction.segmentation.labels


def _load(config: dict[str, Any]) -> tuple[Predictor, dict[str, Any]]:
    model = {key: config[key] for key in ("name", "version", "run_id")}
    return Predictor.load(Path(config["bundle"])), model


@serve.deployment(name="gateway", max_ongoing_requests=64)
@serve.ingress(api)
class Gateway:
    """Checks and decodes requests; holds no model."""

    def __init__(self, predictor: DeploymentHandle, limits: Limits) -> None:
        silence()
        self.predictor, self.limits = predictor, limits

    @api.post("/v1/predict")
    async def predict(
        self,
        request: Request,
        files: Annotated[list[UploadFile], File(description="Slices (.tif), a .zip of them, or NIfTI modalities")],
        clinical: Annotated[str | None, Form(description="JSON object of clinical values")] = None,
        mask: Annotated[str | None, Query(description="rle, png, tiff, nifti, dicom-seg or none")] = None,
    ) -> JSONResponse:
        """Segment one study; answer with mask, features and survival."""
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            raise HTTPException(411, "a request says its Content-Length")
        if int(length) > self.limits.upload_bytes + (1 << 20):
            raise TooLarge(f"a request has at most {self.limits.upload_bytes} bytes", length)
        values = _clinical(clinical)
        with tempfile.TemporaryDirectory(prefix="glioflow-study-") as folder:
            uploads = [(file.filename or "", file.file) for file in files]
            case = await asyncio.to_thread(read_uploads, uploads, Path(folder), self.limits)
            format = check_format(mask, case)
            try:
                predicted = await self.predictor.predict.remote(case, values)
            except BackPressureError:
                return _error(503, "the endpoint is busy; try again")
            except RayTaskError:
                return _error(500, "the prediction failed")
            if isinstance(predicted, UserError):
                raise predicted
            answer, labels = predicted
            answer["mask"] = await asyncio.to_thread(encode_mask, labels, case, format)
        return JSONResponse(answer)

    @api.get("/v1/model")
    async def model(self) -> JSONResponse:
        """Return the champion's card."""
        return JSONResponse(await self.predictor.card.remote())

    @api.get("/healthz")
    async def healthz(self) -> PlainTextResponse:
        """Say that the gateway is alive."""
        return PlainTextResponse("ok")

    @api.get("/readyz")
    async def readyz(self) -> PlainTextResponse:
        """Say that a model is loaded."""
        try:
            card = await asyncio.wait_for(self.predictor.card.remote(), 5)
        except Exception:  # whatever is wrong there: it is not ready
            return PlainTextResponse("no model is loaded", 503)
        return PlainTextResponse(f"ready: {card['model']['name']} {card['model']['version']}")
