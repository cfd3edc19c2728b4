"""The route for corrected masks, sent as files beside the images or as runs drawn in a viewer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse

from glioflow.bundle.answer import ModelCard
from glioflow.bundle.encoded_mask import encode_mask, legend_of_target
from glioflow.bundle.study_checks import with_channels
from glioflow.data.case import Case
from glioflow.data.targets import TargetSettings
from glioflow.serving.http.feedback import Correction, Feedback, TakesNone
from glioflow.serving.http.opened_studies import OpenedStudies
from glioflow.serving.http.study_routes import drawn_on
from glioflow.serving.http.uploads import read_labeled, read_saved
from glioflow.serving.settings import TOKEN


def add_feedback(
    api: FastAPI, card_of_model: Callable[[], Awaitable[ModelCard]], studies: OpenedStudies, feedback: Feedback | None
) -> None:
    """Add the route; it refuses corrections without `feedback`, or if the endpoint has no token."""

    @api.post("/v1/feedback", status_code=202)
    async def post_feedback(
        request: Request,
        files: Annotated[list[UploadFile], File(description="The study, with its corrected masks beside the images")],
        patient: Annotated[str, Form(min_length=1, max_length=200, description="The person; only a key is kept")],
        mask: Annotated[str | None, Form(description="In place of masks beside the images: runs, as JSON")] = None,
        channel: Annotated[list[str] | None, Form(description="NAME=SERIES, as for a prediction")] = None,
        reader: Annotated[str | None, Form(max_length=100, description="Who corrected; kept with it")] = None,
        version: Annotated[int | None, Form(description="The version whose mask was corrected; kept with it")] = None,
        opened_s: Annotated[
            float | None, Form(ge=0, allow_inf_nan=False, description="Seconds since the study was opened")
        ] = None,
        again: Annotated[bool, Form(description="Send although another correction came since")] = False,
    ) -> JSONResponse:
        """Put a corrected mask into quarantine; requires a token, and has a daily quota.

        The answer's `mask` is what was read back from disk, as it would train. 409: another one came since `opened_s`.
        One that the same `reader` sends twice is kept once, and gets the same `id`.
        """
        if feedback is None:
            rule = "feedback needs an endpoint that was started with a token"
            raise TakesNone(rule, hint=f"start it with --token, or with {TOKEN}")
        card = await card_of_model()
        target = TargetSettings.model_validate(card["target"])
        origin = card["origin"]
        tissues = {int(value): name for value, name in origin.get("labels", {}).items()}
        legend = legend_of_target(target, origin["cohort_format"], tissues)
        read: Callable[..., Case] = partial(read_labeled, labels=legend.names)
        if mask is not None:
            read = partial(read_saved, channels=channel or ())
        async with studies.opened(files, partial(read, limits=studies.limits)) as case:
            if mask is not None:
                case = replace(case, mask=drawn_on(case, mask, studies.limits))
            # Under the model's names, since a training takes no others.
            channels = tuple(card["input"]["channels"])
            case = await asyncio.to_thread(with_channels, case, channels, origin["cohort_format"])
            facts = Correction(reader=reader, version=version)
            if opened_s is not None and not again:
                await asyncio.to_thread(feedback.check_alone, case, patient, opened_s, facts)
            entry = await asyncio.to_thread(feedback.take, case, patient, legend.names, facts)
            assert case.mask is not None
            # `take` has read the same from disk.
            kept = await asyncio.to_thread(encode_mask, case.mask, case, "rle", legend)
        request.state.facts = {"feedback": entry}
        answer = {"id": entry, "state": "quarantine", "mask": kept, "request_id": request.state.request_id}
        return JSONResponse(answer, 202)
