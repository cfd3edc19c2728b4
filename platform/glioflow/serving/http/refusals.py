"""Refusals of the endpoint: one JSON form for every mistake and failure, with the status of its kind."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glioflow.errors import OutOfRoom, TooLarge, UserError, causes_of, is_out_of_room
from glioflow.serving.http.feedback import CorrectedMeanwhile, QuotaUsed, TakesNone
from glioflow.serving.http.request_guard import error_body
from glioflow.serving.http.uploaded_files import NO_FILE

_RETRY_S = 1
_HOW_TO_SEND = "send each as multipart/form-data, with curl as -F files=@NAME"
# Status by kind of a caller's mistake; any other is 422.
_STATUSES: dict[type[UserError], int] = {TakesNone: 401, CorrectedMeanwhile: 409, TooLarge: 413, QuotaUsed: 429}


class Busy(Exception):  # noqa: N818 - what it is
    """Too many are waiting, a replica is gone, or the answer took too long: the caller may try again."""


class Broken(Exception):  # noqa: N818 - what it is
    """Two predictors ended while computing a study; it is not tried again."""


def answer_refusals(api: FastAPI) -> None:
    """Make an application answer every mistake and failure in one form, with the status of its kind."""

    @api.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> JSONResponse:
        headers = {"Retry-After": "3600"} if isinstance(error, QuotaUsed) else None
        return JSONResponse({"error": error.to_record()}, _STATUSES.get(type(error), 422), headers=headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["loc"][:2] == ("body", "files"):  # such as -F files=NAME, which sends the name
            return await user_error(request, UserError(NO_FILE, hint=_HOW_TO_SEND))
        value = first.get("input")
        text = str(value)[:80] if isinstance(value, str | int | float | bool) else None
        where = ".".join(str(part) for part in first["loc"])
        return _error(422, f"{where}: {first['msg']}", text)

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if is_out_of_room(error):  # the framework reports every failure to read a body as a mistake in it
            raise OutOfRoom from None
        if error.status_code == 404:
            routes = [path for route in api.routes if isinstance(path := getattr(route, "path", None), str)]
            return _error(404, "no such route", choices=routes)
        if (mistake := next((each for each in causes_of(error) if isinstance(each, UserError)), None)) is not None:
            return await user_error(request, mistake)
        return _error(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @api.exception_handler(Broken)
    async def broken(request: Request, error: Broken) -> JSONResponse:
        return _error(500, "two predictors ended while they computed this study; it is not tried again")

    @api.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return _error(503, str(error) or "the endpoint is busy; try again", headers={"Retry-After": str(_RETRY_S)})


def _error(
    status: int,
    rule: str,
    value: str | None = None,
    choices: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    return JSONResponse(error_body(rule, value, choices), status, headers=headers)
