"""An endpoint in one process, without Ray: the routes that the page asks, around a real predictor."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glioflow.errors import UserError
from glioflow.prediction import Predictor
from glioflow.serving.answers import encode_mask, to_json
from glioflow.serving.server import free_port
from glioflow.serving.settings import Limits
from glioflow.serving.uploads import read_uploads

MODEL = {"name": "demo", "version": 3, "run_id": "0123456789abcdef"}


def card_of(predictor: Predictor, model: dict[str, Any]) -> dict[str, Any]:
    said = predictor.description.model_dump(mode="json")
    return {
        "model": model,
        "architecture": said["model"],
        "input": {"channels": said["channels"], "preprocess": said["preprocess"]},
        **{key: said[key] for key in ("num_parameters", "target", "postprocess", "metrics", "origin")},
        "survival": None if predictor.survival is None else predictor.survival.task,
    }


@contextmanager
def endpoint(predictor: Predictor, *, model: dict[str, Any] = MODEL) -> Iterator[str]:
    """Serve `predictor` for the length of a block; gives the URL."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI()

    @app.get("/v1/model")
    def card():
        return card_of(predictor, model)

    @app.post("/v1/predict")
    async def predict(request: Request):
        form = await request.form()
        clinical = json.loads(form.get("clinical") or "{}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                files = [(file.filename, file.file) for file in form.getlist("files")]
                case = read_uploads(files, Path(folder), Limits())
                prediction = predictor.predict(case, clinical=clinical)
        except UserError as error:
            return JSONResponse({"error": {"rule": error.rule, "value": error.value, "choices": error.choices}}, 422)
        mask = encode_mask(prediction.segmentation.labels, case, request.query_params.get("mask", "rle"))
        return {**to_json(case, prediction, model), "mask": mask}

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
