"""The objective `c_index`: how well the survival stage ranks patients by masks of networks that did not train on them.

The network's epoch and threshold were chosen on these patients, so the value only compares trials. For an unbiased
value of the best one, cross-validate it and run `survival fit`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from glioflow import atomic
from glioflow.cluster.storage import data_folder
from glioflow.config import Experiment
from glioflow.data.splits import Split
from glioflow.errors import RunFailed, UserError
from glioflow.features import measure_mask
from glioflow.progress import Say
from glioflow.quantities import count
from glioflow.runs.launch import Setting
from glioflow.runs.source import Source
from glioflow.survival import SurvivalSettings, join_features, read_clinical

C_INDEX: Final = "c_index"
# Tag of a search with this objective: the digest of its tables.
TABLES = "glioflow.search_tables"
Features = Mapping[str, Mapping[str, float | None]]


class Tables(BaseModel):
    """Where the patients' clinical values and outcomes are, on every node, and the patient of each case."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    clinical: Path
    outcomes: Path | None = None
    persons: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Digest of what the tables hold."""
        digest = hashlib.blake2b(digest_size=16)
        for path in filter(None, (self.clinical, self.outcomes)):
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
        return digest.hexdigest()

    def concordance(self, features: Features, settings: SurvivalSettings) -> float | None:
        """Return the C-index of the stage on these shape features by case; None where no two patients compare.

        Raises:
            UserError: If a table, a column or enough outcomes are missing, with the numbers.
        """
        from glioflow.survival.crossvalidation import cross_validated_concordance

        table = join_features(read_clinical(self.clinical, outcomes=self.outcomes), features, self.persons)
        return cross_validated_concordance(table, settings)


def locate_tables(experiment: Experiment, source: Source) -> Tables | None:
    """Return the tables that the objective `c_index` needs, each of which can be read; None for other objectives.

    Raises:
        UserError: If one is missing, or cannot be read.
    """
    search = experiment.search
    if C_INDEX not in search.objectives:
        return None
    clinical = source.clinical if search.clinical is None else _locate(search.clinical, "search.clinical")
    if clinical is None:
        rule = f"the objective {C_INDEX} needs a clinical table, and the cohort has none"
        raise UserError(rule, hint="give its path as search.clinical")
    outcomes = None if search.outcomes is None else _locate(search.outcomes, "search.outcomes")
    read_clinical(clinical, outcomes=outcomes)
    return Tables(clinical=clinical, outcomes=outcomes)


def find_tables(setting: Setting, folds: Sequence[Split], *, say: Say) -> Tables | None:
    """Find the tables where `c_index` is an objective, and try the stage on the folds' patients with their own masks.

    Raises:
        UserError: If a table, a column or enough outcomes are missing, with the numbers.
    """
    cohort = setting.cohort
    tables = locate_tables(setting.experiment, cohort)
    if tables is None:
        return None
    cases = [cohort.case(case_id) for fold in folds for case_id in fold.val]
    persons = {case.record.id: case.record.patient for case in cases}
    tables = tables.model_copy(update={"persons": persons})
    features = {
        case.record.id: measure_mask(case.reference() > 0, spacing_mm=case.record.spacing_mm).volume for case in cases
    }
    try:
        manual = tables.concordance(features, setting.experiment.survival)
    except UserError as error:
        raise error.replace(rule=f"the objective {C_INDEX}: {error.rule}") from None
    if manual is None:
        rule = f"the objective {C_INDEX} needs patients of whom one is known to die before another"
        raise UserError(rule, count(len(cases), "case"), hint="give more folds or patients, or search for dice alone")
    say(f"C-index on the manual masks of the folds' {len(cases)} cases: {manual:.3f}")
    return tables


def c_index(tables: Tables, files: Sequence[Path], experiment: Experiment) -> float:
    """Return a trial's C-index from the features that its folds wrote of their validation patients.

    Raises:
        RunFailed: If it is undefined.
    """
    features = {case_id: values for file in files for case_id, values in atomic.read_json(file).items()}
    try:
        reached = tables.concordance(features, experiment.survival)
    except UserError as error:
        raise RunFailed(f"the objective {C_INDEX}: {error}") from error
    if reached is None:
        raise RunFailed(f"the objective {C_INDEX} is undefined for these masks")
    return reached


def _locate(name: str, key: str) -> Path:
    """Return the file that the setting `key` names, here or in the data folder."""
    folder = data_folder()
    paths = [Path(name).absolute(), *([folder / name] if folder else [])]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"{key} must name a file", name, hint=f"there is no {' and no '.join(map(str, paths))}")
