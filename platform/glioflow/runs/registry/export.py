"""Export of a bundle from MLflow to a folder or zip with card and checksums, which `predict` accepts directly."""

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from glioflow import atomic, bundle
from glioflow.bundle.card import CARD
from glioflow.bundle.starter import STARTER, find_starter
from glioflow.errors import UserError, argument
from glioflow.runs.registry.register import cards, lineage
from glioflow.tracking import Tracking

SUMS = "SHA256SUMS"


def export(model: str, out: Path) -> Path:
    """Write the bundle of a model, with card and checksums, to a new folder, or to a zip where `out` ends with .zip.

    Args:
        model: A registered model, a run, or a bundle's folder, as `Tracking.find_bundle` takes it, or `starter`.
        out: Must not exist.

    Returns:
        Its absolute path.

    Raises:
        UserError: If the model is missing or incomplete, or `out` exists.
    """
    out = out.absolute()
    if out.exists():
        raise UserError(f"{out} exists, and export never overwrites", out, hint="give a path that does not exist")
    atomic.check_folder(out.parent, argument("out"))
    tracking = Tracking()
    folder, version = (find_starter(), None) if model == STARTER else tracking.find_bundle(model)
    experiment = bundle.load(folder).description.origin.experiment
    title = f"{version.name} version {version.version}" if version else experiment
    run_id = version.run_id if version else _run_of(str(folder) if model == STARTER else model)
    facts = lineage(tracking.run(run_id)) if run_id else {}
    documents = {**cards(folder, title=title, lineage=facts), **_own_documents(folder)}
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".zip":
        _write_zip(folder, out, documents)
    else:
        with atomic.new_folder(out) as working:
            _fill(folder, working, documents)
    return out


def _own_documents(folder: Path) -> dict[str, str]:
    """Return the license and the card in a bundle's folder."""
    if not (folder / bundle.LICENSE).is_file():
        return {}
    return {name: (folder / name).read_text() for name in (bundle.LICENSE, CARD) if (folder / name).is_file()}


def _run_of(model: str) -> str | None:
    run_id = model.removeprefix("runs:/").split("/")[0]
    return None if Path(model).is_dir() else run_id


def _fill(folder: Path, working: Path, documents: dict[str, str]) -> None:
    """Copy the bundle's own files, write the documents, and the checksums of both as `sha256sum -c` reads them."""
    for name in (bundle.MODEL, *bundle.read_description(folder).files):
        shutil.copyfile(folder / name, working / name)
    for name, text in documents.items():
        (working / name).write_text(text)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(working.iterdir())]
    (working / SUMS).write_text("".join(lines))


def _write_zip(folder: Path, out: Path, documents: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        working = Path(scratch) / out.stem
        working.mkdir()
        _fill(folder, working, documents)
        packed = Path(scratch) / out.name
        with zipfile.ZipFile(packed, "w") as archive:  # uncompressed: weights do not shrink
            for path in sorted(working.iterdir()):
                archive.write(path, f"{out.stem}/{path.name}")
        packed.replace(out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
