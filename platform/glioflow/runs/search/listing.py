"""The searches of this home, with their state and best result."""

from dataclasses import dataclass
from typing import Any, Literal

from glioflow.cluster.lease import holder_of
from glioflow.cluster.remote_home import address_of, list_shared
from glioflow.cluster.storage import home, home_uri
from glioflow.errors import UserError, option
from glioflow.runs.search.tuner import SearchFolder
from glioflow.tracking import Tracking


@dataclass(frozen=True)
class ListedSearch:
    """One search of this home.

    Attributes:
        name: Name of the search, for `--resume`.
        state: `running` if a process runs it; `interrupted` if it can be continued.
        run_id: Its run; None if none was opened, or if an earlier version began the search.
        ended: Number of trials that ended; None for searches by earlier versions.
        best: Best `val/dice_mean`, or None.
    """

    name: str
    state: Literal["running", "finished", "interrupted"]
    run_id: str | None
    ended: int | None = None
    best: float | None = None


def list_searches() -> list[ListedSearch]:
    """Return the searches of this home by name."""
    folder = home() / "searches"
    names = [name for name in list_shared(folder) if home_uri() or (folder / name).is_dir()]
    tracking = Tracking() if names else None
    return [_listed(SearchFolder(name, folder / name), tracking) for name in names]


def _listed(folder: SearchFolder, tracking: Tracking | None) -> ListedSearch:
    run: Any = None
    if tracking is not None and folder.run_id is not None:
        try:
            run = tracking.run(folder.run_id)
        except UserError:  # in another store, or deleted
            run = None
    running, finished = holder_of(folder.path) is not None, run is not None and run.info.status == "FINISHED"
    metrics = {} if run is None else run.data.metrics
    return ListedSearch(
        name=folder.name,
        state="running" if running else "finished" if finished else "interrupted",
        run_id=folder.run_id,
        ended=int(metrics["search/num_ended"]) if "search/num_ended" in metrics else None,
        best=metrics.get("search/best_dice", metrics.get("val/dice_mean")),
    )


def unknown_search(name: str) -> UserError:
    """Return the error for the name of a search that was not begun in this home."""
    begun = list_shared(home() / "searches")
    hint = None if begun else f"no search was begun in {address_of(home())}; leave out {option('resume')} to begin one"
    return UserError(f"{option('resume')} must name an earlier search", name, begun or None, hint=hint)
