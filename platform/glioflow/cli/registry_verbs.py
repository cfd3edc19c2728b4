"""The verbs about registered models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson, Data
from glioflow.cli.output import answer, print_line, progress, table, told
from glioflow.errors import UserError


@app.command()
def register(
    run_id: str,
    name: Annotated[str | None, typer.Option(help="Of the model; default is the experiment's.")] = None,
    survival: Annotated[str | None, typer.Option(help="Run id of a survival stage to put inside.")] = None,
    crossval: Annotated[str | None, typer.Option(help="Run id whose interval of tumor volumes goes inside.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the bundle of a run the next version of a model."""
    from glioflow.runs.registry.register import register as run

    with told():
        made = run(run_id, name=name, survival=survival, crossval=crossval)
        answer({"name": made.name, "version": made.version}, as_json)


@app.command()
def promote(
    name: str,
    version: Annotated[int | None, typer.Option(min=1)] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put a version before the gate; move the alias champion or say why not."""
    from glioflow.cluster.storage import prepared_home
    from glioflow.data.prepared.remote import local_folder
    from glioflow.promotion import promote as run

    with told():
        source = local_folder(data, prepared_home()) if data else None
        verdict = run(name, version=version, data=source, home=prepared_home())

        def show() -> None:
            rows = [
                [reason.rule, reason.value, reason.limit, "yes" if reason.passed else "NO", reason.note]
                for reason in verdict.reasons
            ]
            head = ["rule", "value", "limit", "holds", ""]
            table(f"{name} version {verdict.version}: {verdict.decision}", head, rows)

        answer(verdict.model_dump(mode="json"), as_json, show)


@app.command()
def rollback(name: str, as_json: AsJson = False) -> None:
    """Go back to the champion before this one."""
    from glioflow.promotion import rollback as run

    with told():
        verdict = run(name)
        answer({"name": name, "version": verdict.version, "previous": verdict.previous}, as_json)


@app.command()
def models(name: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """List versions, aliases and decisions."""
    from glioflow.promotion import decisions
    from glioflow.tracking import Tracking

    with told():
        tracking = Tracking()
        if name is not None and name not in tracking.names():
            raise UserError(f"no registered model {name!r}", choices=tracking.names())
        rows: list[dict[str, Any]] = []
        for each in [name] if name else tracking.names():
            verdicts = decisions(tracking, each)
            for found in tracking.versions(each):
                said = [f"{v.decision} {v.when}" for v in verdicts if v.version == found.version]
                rows.append({"name": each, "version": found.version, "aliases": list(found.aliases), "decisions": said})
        head = ["name", "version", "aliases", "decisions"]
        answer({"models": rows}, as_json, lambda: table("", head, [[row[key] for key in head] for row in rows]))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="NAME, NAME@alias, a run id, or a bundle's folder.")],
    out: Annotated[Path, typer.Argument(help="New folder, or new file that ends with .zip.")],
    as_json: AsJson = False,
) -> None:
    """Write a bundle, with its card and checksums, to a folder or a zip that needs no MLflow."""
    from glioflow.runs.registry.export import export as run

    with told():
        answer({"path": str(run(model, out))}, as_json)


@app.command()
def reproduce(run_id: str, data: Data = None, as_json: AsJson = False) -> None:
    """Run a logged training, trial or fold again from what it logged, and compare every number."""
    from glioflow import cluster
    from glioflow.runs.registry.reproduce import reproduce as run

    with told(), progress("reproduce") as say, cluster.ending():
        done = run(run_id, data, say=say)
        payload = {
            "run_id": done.run_id,
            "reproduces": done.original,
            "identical": done.identical,
            "compared": done.compared,
            "differences": done.differences,
            "environment": done.environment,
        }

        def show() -> None:
            head = ["what", "name", "before", "after"]
            rows = [[difference[key] for key in head] for difference in done.differences or done.environment]
            said = "every one the same" if done.identical else "not the same"
            table(f"{done.compared} numbers of run {run_id} again as run {done.run_id}: {said}", head, rows)

        answer(payload, as_json, show)


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="Trials of a finished search whose bundles stay.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no run or version needs: old checkpoints, working folders, worse trials, unused cohorts."""
    from glioflow.runs.registry.cleanup import collect

    with told():
        removed = collect(keep=keep, dry_run=dry_run)
        total = sum(each.bytes for each in removed)

        def show() -> None:
            table("", ["path", "MB", "why"], [[each.path, each.bytes / 1e6, each.why] for each in removed])
            print_line(f"{total / 1e6:.1f} MB {'would be' if dry_run else 'were'} removed")

        rows = [{"path": each.path, "bytes": each.bytes, "why": each.why} for each in removed]
        answer({"removed": rows, "bytes": total, "dry_run": dry_run}, as_json, show)
