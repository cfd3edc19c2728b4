"""One prepared cohort per preprocessing that a search tries, made before its first trial, within a disk budget."""

from collections.abc import Mapping
from pathlib import Path

from glioflow.cluster.storage import prepared_home
from glioflow.config import Experiment
from glioflow.config.search import PREPROCESS, Choice
from glioflow.data.prepared.agreement import check_labels
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import UserError, space_of
from glioflow.progress import Say
from glioflow.runs.launch import open_cohort_for
from glioflow.runs.source import Source, try_steps
from glioflow.tracking.cohort_uses import note_use

# Tag of a search: fingerprints of the prepared cohorts that its trials may use.
VARIANTS = "glioflow.cohort_variants"


def check_variants(experiment: Experiment, source: Source) -> dict[str, float]:
    """Return about how many GB the cohort takes under every preprocessing that the space names, by name.

    Raises:
        UserError: Before any of them is made: if the cohort is prepared, a preprocessing asks for what it does not
            have, the target's labels are not those that it leaves, or all of them would not fit the disk budget.
    """
    named = experiment.search.space.get(PREPROCESS)
    if not isinstance(named, Choice):
        return {}
    if isinstance(source, PreparedCohort):
        hint = "give the folder that it was prepared from"
        rule = "a search over preprocessing needs a raw cohort"
        raise UserError(rule, f"{source.path}, which is prepared", hint=hint)
    steps = {str(name): experiment.search.preprocess[str(name)] for name in named.values}
    for each in steps.values():
        check_labels(experiment.target, source.labels, each, source.path)
    tried = try_steps(source, [*steps.values()])
    sizes = {name: each.size / 1e9 for name, each in zip(steps, tried, strict=True)}
    limit = experiment.search.disk_gb or space_of(prepared_home())[1] / 1e9
    if sum(sizes.values()) > limit:
        listed = ", ".join(f"{name} {size:.3g} GB" for name, size in sizes.items())
        rule = f"the prepared cohorts of a search must fit in {limit:.3g} GB (search.disk_gb, or what is free)"
        hint = "search fewer preprocessings, raise search.disk_gb or free disk space"
        raise UserError(rule, f"about {sum(sizes.values()):.3g} GB: {listed}", hint=hint)
    return sizes


def prepare_variants(
    experiment: Experiment, source: str | Path, sizes: Mapping[str, float], *, uri: str, say: Say
) -> dict[str, PreparedCohort]:
    """Prepare the cohort under every preprocessing that the space names; trials share them by fingerprint.

    Args:
        experiment: Experiment with its search.
        source: The cohort.
        sizes: As `check_variants` returned them.
        uri: URI of the store that records the search, which is noted as the cohorts' user.
        say: Called with each line of progress.

    Returns:
        The prepared cohort by name; empty where no preprocessing is searched.
    """
    made: dict[str, PreparedCohort] = {}
    for name, size in sizes.items():
        say(f"preprocessing {name}, about {size:.3g} GB")
        made[name] = open_cohort_for(experiment.search.preprocess[name], source, experiment.target, say=say)
        for cohort in made.values():  # again, since preparing the others may take hours
            note_use(uri, cohort.manifest.fingerprint)
    _same_cases(made)
    return made


def _same_cases(made: dict[str, PreparedCohort]) -> None:
    assert len({tuple(cohort.records.ids()) for cohort in made.values()}) <= 1, (
        "one source has the same cases under any steps"
    )
