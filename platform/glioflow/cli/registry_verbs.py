"""The verbs about registered models."""

from typing import Annotated, Any

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson, Data
from glioflow.cli.output import answer, table, told
from glioflow.errors import UserError


@app.command()
def register(
    run_id: str,
    name: Annotated[str | None, typer.Option(help="Of the model; default is the experiment's.")] = None,
    survival: Annotated[str | None, typer.Option(help="Run id of a survival stage to put inside.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the bundle of a run the next version of a model."""
    from glioflow.runs.register import register as run

    with told():
        made = run(run_id, name=name, survival=survival)
        answer({"name": made.name, "version": made.version}, as_json)


@app.command()
def promote(
    name: str,
    version: Annotated[int | None, typer.Option(min=1)] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put a version before the gate; move the alias champion or say why not."""
    from glioflow.config.places import prepared_home
    from glioflow.data.remote import local_folder
    from glioflow.promotion import promote as run

    with told():
        source = local_folder(data, prepared_home()) if data else None
        verdict = run(name, version=version, data=source, home=prepared_home())

        def show() -> None:
            rows = [
                [reason.rule, reason.value, reason.limit, "yes" if reason.passed else "NO"]
                for reason in verdict.reasons
            ]
            table(f"{name} version {verdict.version}: {verdict.decision}", ["rule", "value", "limit", "holds"], rows)

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
