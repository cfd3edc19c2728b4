"""One prepared cohort per preprocessing that a search tries, made before its first trial, within a disk budget."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from glioflow.cluster.storage import prepared_home
from glioflow.config import Experiment
from glioflow.config.search import PREPROCESS, Choice
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.remote import local_folder
from glioflow.data.preprocessing.pipeline import Step, preprocess
from glioflow.errors import UserError
from glioflow.progress import Say
from glioflow.runs.launch import open_cohort_for
from glioflow.tracking.cohort_uses import note_use

# Tag of a search: fingerprints of the prepared cohorts that its trials may use, whether or not they did yet.
VARIANTS = "glioflow.cohort_variants"


def prepare_variants(experiment: Experiment, source: str | Path, *, uri: str, say: Say) -> dict[str, PreparedCohort]:
    """Prepare the cohort under every preprocessing that the space names; trials share them by fingerprint.

    Args:
        experiment: With its search.
        source: The cohort.
        uri: Of the store that records the search, which is noted as their user.
        say: Told what happens.

    Returns:
        The prepared cohort by name; empty where no preprocessing is searched.

    Raises:
        UserError: If a raw cohort is needed, or they would not fit the disk budget: before any of them is made.
    """
    named = experiment.search.space.get(PREPROCESS)
    if not isinstance(named, Choice):
        return {}
    out = prepared_home()
    folder = local_folder(source, out)
    if is_prepared(folder):
        hint = "give the folder that it was prepared from"
        raise UserError("a search over preprocessing needs a raw cohort", f"{folder}, which is prepared", hint=hint)
    steps = {str(name): experiment.search.preprocess[str(name)] for name in named.values}
    out.mkdir(parents=True, exist_ok=True)
    sizes = {name: estimate_bytes(folder, each) / 1e9 for name, each in steps.items()}
    limit = experiment.search.disk_gb or shutil.disk_usage(out).free / 1e9
    if sum(sizes.values()) > limit:
        listed = ", ".join(f"{name} {size:.3g} GB" for name, size in sizes.items())
        rule = f"the prepared cohorts of a search must fit in {limit:.3g} GB (search.disk_gb, or what is free)"
        hint = "search fewer preprocessings, raise search.disk_gb or free disk space"
        raise UserError(rule, f"about {sum(sizes.values()):.3g} GB: {listed}", hint=hint)
    made: dict[str, PreparedCohort] = {}
    for name, each in steps.items():
        say(f"preprocessing {name}, about {sizes[name]:.3g} GB")
        made[name] = open_cohort_for(each, source, experiment.target)
        for cohort in made.values():  # anew, since the others may take hours
            note_use(uri, cohort.manifest.fingerprint)
    _same_cases(made)
    return made


def estimate_bytes(folder: Path, steps: Sequence[Step]) -> float:
    """Estimate what a raw cohort takes once prepared: its first case's share, by bytes of its files."""
    cohort = open_cohort(folder)
    sizes = [sum(path.stat().st_size for path in case.files) for case in cohort.cases]
    volume = preprocess(cohort.read_files(cohort.cases[0]), tuple(steps))
    own = 2 * volume.image.size + (
        0 if volume.mask is None else volume.mask.nbytes
    )  # images are kept in half precision
    return float(own) * sum(sizes) / sizes[0]


def _same_cases(made: dict[str, PreparedCohort]) -> None:
    ids = {name: [*cohort.records.ids()] for name, cohort in made.items()}
    assert len({tuple(each) for each in ids.values()}) == 1, "one source has the same cases under any steps"
