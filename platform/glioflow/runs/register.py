"""From a finished run to a model version: the bundle, with a survival stage if one is given, stored in the registry."""

import uuid

from glioflow import bundle
from glioflow.runs.survival import read_stage, working_folder
from glioflow.tracking import BUNDLE, Tracking, Version


def register(run_id: str, *, name: str | None = None, survival: str | None = None) -> Version:
    """Make the bundle of a run the next version of a model.

    Args:
        run_id: A finished training or trial.
        name: Of the model; None takes the experiment's name.
        survival: Run id of a survival stage to put inside.

    Raises:
        UserError: If a run does not exist, or has no bundle or stage.
    """
    import shutil

    tracking = Tracking()
    run = tracking.run(run_id)
    folder = tracking.download(f"runs:/{run_id}/{BUNDLE}")
    stage = read_stage(survival) if survival else None
    out = working_folder(uuid.uuid4().hex)
    try:
        bundle.with_stage(
            folder, out, survival=stage, metrics={k: float(v) for k, v in run.data.metrics.items() if "/" in k}
        )
        description = bundle.read_description(out)
        tags = {
            "glioflow.bundle": bundle.digest_of(out),
            "glioflow.test": description.origin.test,
            "glioflow.cohort": description.origin.fingerprint,
            **({"glioflow.survival_run": survival} if survival else {}),
        }
        return tracking.register(name or description.origin.experiment, run_id, out, tags=tags)
    finally:
        shutil.rmtree(out, ignore_errors=True)
