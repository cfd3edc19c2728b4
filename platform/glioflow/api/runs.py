"""Runs after their end: repeating them, listing searches, removing what nobody needs."""

from dataclasses import dataclass, field
from pathlib import Path

from glioflow import cluster
from glioflow.api.inputs import check_number, run_of
from glioflow.api.results import Result
from glioflow.cluster.remote_home import address_of
from glioflow.cluster.storage import home
from glioflow.progress import Say, print_progress
from glioflow.reports.numbers import short
from glioflow.reports.tables import Table
from glioflow.runs.registry.cleanup import Removed, collect
from glioflow.runs.registry.reproduce import Difference
from glioflow.runs.registry.reproduce import reproduce as run_again
from glioflow.runs.search import listing


@dataclass(frozen=True)
class ReproductionResult(Result):
    """A logged run, run again.

    Attributes:
        run_id: Id of the new run.
        reproduces: Id of the old run.
        identical: Whether every number and every weight is the same.
        compared: How many numbers were compared.
        differences: What differs; if anything does, also in code and environment.
        environment: What differs in code and environment, even if all numbers agree.
    """

    run_id: str
    reproduces: str
    identical: bool
    compared: int
    differences: list[Difference] = field(repr=False)
    environment: list[Difference] = field(repr=False)

    def tables(self) -> list[Table]:
        """Return the differences."""
        verdict = "all equal" if self.identical else "not all equal"
        title = f"run {self.run_id} repeats run {self.reproduces}: {self.compared} numbers compared, {verdict}"
        rows = [list(difference.values()) for difference in self.differences or self.environment]
        return [Table(title, ["what", "name", "before", "after"], rows)]


@dataclass(frozen=True)
class SearchList(Result):
    """The searches of this home."""

    searches: list[listing.ListedSearch]

    def tables(self) -> list[Table]:
        """Return the searches, a row each."""
        head = ["name", "state", "ended", "best", "run_id"]
        return [Table("", head, [[short(getattr(each, key), 3) for key in head] for each in self.searches])]

    def notes(self) -> list[str]:
        """Return a line if there is none."""
        return [] if self.searches else [f"no search was begun in {address_of(home())}; `glioflow search` begins one"]


@dataclass(frozen=True)
class CleanupResult(Result):
    """What was removed or, in a dry run, what would be.

    Attributes:
        removed: `path`, `bytes` and `why` of each.
        bytes: Total size.
        dry_run: Whether nothing was removed.
    """

    removed: list[Removed]
    bytes: int
    dry_run: bool

    def tables(self) -> list[Table]:
        """Return what was removed, and why."""
        return [Table("", ["path", "MB", "why"], [[each.path, each.bytes / 1e6, each.why] for each in self.removed])]

    def notes(self) -> list[str]:
        """Return the sum."""
        return [f"{self.bytes / 1e6:.1f} MB {'would be' if self.dry_run else 'were'} removed"]


def reproduce(run: object, data: str | Path | None = None, *, say: Say = print_progress) -> ReproductionResult:
    """Run a logged training, trial or fold again from what it logged, and compare every number.

    Args:
        run: Id of the finished run, or the result of `train`.
        data: The cohort; None takes the recorded one.
        say: Called with each line of progress, and with the part of the work that is done, in [0, 1].

    Raises:
        UserError: If the run trained nothing, is not finished, or its cohort is gone or another one.
        RunFailed: If the training fails.
    """
    with cluster.ending():
        done = run_again(run_of(run), data, say=say)
    return ReproductionResult(
        done.run_id, done.original, done.identical, done.compared, done.differences, done.environment
    )


def list_searches() -> SearchList:
    """List the searches of this home with their state and their best trial."""
    return SearchList(listing.list_searches())


def collect_garbage(*, keep: int = 3, dry_run: bool = False, say: Say = print_progress) -> CleanupResult:
    """Remove what no run or version needs: old checkpoints, working folders, worse trials, unused cohorts.

    Args:
        keep: Number of trials whose bundles are kept in each finished search.
        dry_run: Only list what would be removed.
        say: Called with what is kept although it looks unneeded, and with the total.

    Raises:
        UserError: If `keep` is below 1.
    """
    check_number("keep", keep, 1)
    removed = collect(keep=keep, dry_run=dry_run, say=say)
    return CleanupResult(removed, sum(each.bytes for each in removed), dry_run)
