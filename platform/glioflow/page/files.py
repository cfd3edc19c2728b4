"""The page's files over HTTP: fetched from this server alone, under a policy that lets nothing else in.

Every address in them is relative to `page/`, so that the page works behind a reverse proxy, below any prefix.
"""

import asyncio
import io
import json
import zipfile
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from glioflow.data.formats.file_roles import BRAIN_NAME, MARKED_NAME, MASK_NAME
from glioflow.data.formats.paired_folders import IMAGES_FOLDER, MASKS_FOLDER
from glioflow.data.sequences import SEQUENCES
from glioflow.page.examples import examples
from glioflow.reports.overlay import COLORS

PAGE = "/page"
STATIC = Path(__file__).with_name("static")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def add_page(api: FastAPI) -> None:
    """Add the page below `PAGE`; it holds no data of anybody, so it needs no token."""

    @api.get(PAGE, include_in_schema=False)
    async def enter() -> Response:
        return RedirectResponse("page/", headers=HEADERS)

    @api.get(f"{PAGE}/names.json", include_in_schema=False)
    async def names() -> Response:
        return Response(json.dumps(table_of_names()), media_type="application/json", headers=HEADERS)

    @api.get(f"{PAGE}/example-{{kind}}-{{number}}.zip", include_in_schema=False)
    async def example(kind: str, number: int) -> Response:
        made = await asyncio.to_thread(examples, kind) if kind in ("lgg", "brats") else ()
        if not 1 <= number <= len(made):
            raise HTTPException(404)
        return Response(_zipped(made[number - 1]), media_type="application/zip", headers=HEADERS)

    @api.get(f"{PAGE}/{{name:path}}", include_in_schema=False)
    async def file(name: str) -> Response:
        path = STATIC / (name or "index.html")
        if path not in STATIC.iterdir() or path.suffix not in _TYPES:
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=HEADERS)


def table_of_names() -> dict[str, object]:
    """Return what the browser needs to tell files by their names, as the endpoint's readers do, and labels' colors."""
    return {
        "mask": MASK_NAME.pattern,
        "marked": MARKED_NAME.pattern,
        "brain": BRAIN_NAME.pattern,
        "image_folders": IMAGES_FOLDER.pattern,
        "mask_folders": MASKS_FOLDER.pattern,
        "sequences": {name: sequence.name for sequence in SEQUENCES for name in sorted(sequence.names)},
        "colors": COLORS,
    }


def _zipped(files: tuple[tuple[str, bytes], ...]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()
