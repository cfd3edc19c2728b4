"""The lease of a run: a tag that its process renews while alive, so that others recognize abandoned runs."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from glioflow.clock import as_text
from glioflow.cluster.lease import Holder, this_process
from glioflow.cluster.lease_files import FilesOnDisk
from glioflow.cluster.storage import home, home_uri
from glioflow.errors import UserError
from glioflow.tracking.addresses import answers
from glioflow.tracking.store import Tracking

# Tag: the time, in seconds since 1970, until which the run's process has promised to renew it.
LEASE = "glioflow.leased_until"
# Tag: the home of that driver. Within one home, the lease in the run's folder decides.
LEASED_BY = "glioflow.leased_by"
# Tag: the driver itself; its own machine can tell when it has ended.
LEASED_TO = "glioflow.leased_to"
# Longer than a short outage of MLflow and than the clock difference between two machines.
LEASE_S = 300.0


def lease_tags() -> dict[str, str]:
    """Return the tags of a run whose process is alive now."""
    return {LEASE: _until(), LEASED_BY: _this_home(), LEASED_TO: json.dumps(asdict(this_process()))}


def _until() -> str:
    return f"{time.time() + LEASE_S:.0f}"


def _this_home() -> str:
    """Return an id of this home that differs from homes with the same path on other machines and from copies."""
    if (uri := home_uri()) is not None:
        return uri
    folder = home().resolve()  # it may be reached by links
    note = folder / "id"
    if not note.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was faster
            FilesOnDisk(folder).claim(note.name, uuid.uuid4().hex[:12])
    return f"{folder} ({note.read_text()})"


def check_lease(run: Any) -> None:
    """Refuse to continue a run that a driver of another home is running; raises `UserError`.

    A driver that ended on this machine is replaced at once, one elsewhere when its lease expires.
    """
    until, by = float(run.data.tags.get(LEASE, 0)), run.data.tags.get(LEASED_BY)
    if run.info.status != "RUNNING" or by is None or by == _this_home() or until < time.time():
        return
    with contextlib.suppress(KeyError, ValueError, TypeError):  # earlier versions recorded no driver
        if Holder(**json.loads(run.data.tags[LEASED_TO])).is_gone:
            return
    rule = f"run {run.info.run_id} is being run from the home {by}"
    when = as_text(until)
    raise UserError(rule, hint=f"continue it there, or here after {when} if that home does not renew it")


def is_of_another_home(run: Any) -> bool:
    """Return whether a run has a lease that a driver of another home took; a moved home is the same one."""
    home_id = _this_home().rpartition(" ")[2]  # of a home on a disk, "PATH (ID)"
    return LEASE in run.data.tags and run.data.tags.get(LEASED_BY, "").rpartition(" ")[2] != home_id


@contextmanager
def leased(tracking: Tracking, run_id: str) -> Iterator[None]:
    """Renew the lease of a run while a block runs, three times per lease length."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_S / 3):
            with contextlib.suppress(Exception):  # the store is unreachable: the run's end overrides a close by others
                if answers(tracking.uri, patience_s=0):
                    tracking.set_tags(run_id, {LEASE: _until()})

    threading.Thread(target=renew, name="lease", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def expired(runs: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """Yield those of MLflow's runs that are open although their lease expired, with its last renewal in ms.

    A run without a lease is closed with its parent, or by the command that resumes it.
    """
    for run in runs:
        until = run.data.tags.get(LEASE)
        if run.info.status == "RUNNING" and until is not None and float(until) < time.time():
            yield run, max(run.info.start_time, int((float(until) - LEASE_S) * 1000))
