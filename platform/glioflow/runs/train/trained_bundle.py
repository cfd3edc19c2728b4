"""A trained bundle between the node that wrote it and the nodes that need it.

It goes into the run in MLflow, once. A home in an object store holds only its description, unless MLflow was away.
"""

from pathlib import Path

from glioflow import bundle
from glioflow.cluster.remote_home import fetch, share
from glioflow.cluster.storage import home_uri
from glioflow.errors import UserError
from glioflow.runs.plan import Plan
from glioflow.tracking import BUNDLE, PATIENCE_S, RunWriter, Tracking
from glioflow.tracking.addresses import answers


def send_bundle(plan: Plan, writer: RunWriter) -> None:
    """Log a training's bundle; keep that of a fold of a trial, which no run has, in the home."""
    if plan.fold is not None:
        share(plan.features)
        share(plan.bundle)
        return
    writer.log_folder(plan.bundle, folder=BUNDLE)
    share(plan.bundle / bundle.MODEL)  # last: it says that the weights were sent, and which ones


def fetch_description(plan: Plan) -> bundle.Description:
    """Return the description of a bundle that another node may have written."""
    fetch(plan.bundle / bundle.MODEL)
    return bundle.read_description(plan.bundle)


def fetch_bundle(plan: Plan) -> Path:
    """Bring a training's bundle, sent by any node, to this one, and return its folder."""
    fetch(plan.bundle)
    if home_uri() is None:
        return plan.bundle
    try:
        bundle.check_files(plan.bundle)
    except UserError:
        answers(plan.tracking_uri, patience_s=PATIENCE_S)
        tracking = Tracking(plan.tracking_uri, ask=False)
        tracking.download(f"runs:/{plan.run_id}/{BUNDLE}", into=str(plan.bundle.parent))
    return plan.bundle
