"""Corrected masks from callers: quarantined under a pseudonym, and used as labeled cases once accepted.

A patient's key is an HMAC with a secret of this home: the same person gets the same key, so that no split can put the
person on both sides, and the key does not reveal the person. Headers and names of the uploaded files are not kept.
"""

import fcntl
import hashlib
import hmac
import itertools
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NotRequired, TypedDict, cast

import numpy as np

from glioflow import atomic
from glioflow.cluster.storage import home, home_uri
from glioflow.data.case import Case
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import read_roles
from glioflow.data.formats.record import Cohort
from glioflow.errors import UserError
from glioflow.serving.http.feedback_files import declare, read_back, write_case

_DAY_S = 24 * 3600
_CAME = "came.json"
_ONE_LABEL: Mapping[int, str] = MappingProxyType({1: "tumor"})
_ENTRY = re.compile(r"^[0-9a-f]{12}$")


class FeedbackEntry(TypedDict):
    """One study in quarantine: its number, the key of its patient, the kind of its files, when it came (POSIX, s).

    `reader` is the name that the person who corrected it gave, `version` the model's whose mask was corrected,
    `content` the digest by which the same correction is recognized if it is sent twice.
    """

    id: str
    patient: str
    kind: str
    received: float
    slices: int
    labeled_px: int
    labels: NotRequired[dict[str, str]]
    reader: NotRequired[str]
    version: NotRequired[int]
    content: NotRequired[str]


class Correction(NamedTuple):
    """Who corrected a mask, as the person typed it, and which version's it was; kept with it and never logged."""

    reader: str | None = None
    version: int | None = None


class CorrectedMeanwhile(UserError):  # noqa: N818 - what it is
    """Another correction of the patient arrived since the study was opened; the endpoint answers 409."""

    code = "corrected-meanwhile"


class TakesNone(UserError):  # noqa: N818 - what it is
    """The endpoint has no token to check who may send corrections; it answers 401."""

    code = "takes-none"


class QuotaUsed(UserError):  # noqa: N818 - what it is
    """The daily quota of studies is used up; the endpoint answers 429."""

    code = "quota"


class Feedback:
    """Quarantine and accepted cases below one folder."""

    def __init__(self, folder: Path | None = None, *, per_day: int = 100) -> None:
        """Keep everything in `folder`, by default `feedback/` under the home."""
        self.folder, self.per_day = folder or home() / "feedback", per_day
        self.quarantine, self.accepted = self.folder / "quarantine", self.folder / "accepted"

    def check_alone(self, case: Case, patient: str, seconds: float, correction: Correction) -> None:
        """Raise `CorrectedMeanwhile` if another correction of the patient arrived in the last `seconds` and waits."""
        key, since = self.key_of(patient), time.time() - seconds
        content = _content(case, key, correction)
        waiting = [each for each in self.entries() if each["patient"] == key and each["received"] > since]
        came = [each["received"] for each in waiting if content is None or each.get("content") != content]
        if came:
            minutes = int((time.time() - max(came)) / 60)
            when = f"{minutes} min ago" if minutes else "less than a minute ago"
            rule = f"another correction of this patient arrived {when}, after you opened the study"
            raise CorrectedMeanwhile(rule, hint="send yours too if both should be judged")

    def take(
        self,
        case: Case,
        patient: str,
        labels: Mapping[int, str] = _ONE_LABEL,
        correction: Correction = Correction(),  # noqa: B008 - a record that nobody can change
    ) -> str:
        """Put a labeled study into quarantine, after checking that a reader reads it unchanged; return its number.

        A named reader's correction that waits there already, as when its answer was lost on the way, keeps its number.

        Args:
            case: With its mask.
            patient: The person; only a key is kept.
            labels: The model's labels, which the mask may contain, by meaning.
            correction: The reader, and the version that was corrected.

        Raises:
            UserError: If it has no mask, or one with another label; or if the home is an object store, where no patient
                keys are kept.
            QuotaUsed: If today's quota is used up.
        """
        if home_uri() is not None:
            raise UserError(
                "feedback needs a GLIOFLOW_HOME that is a folder",
                home_uri(),
                hint="start the endpoint with such a home",
            )
        if case.mask is None:
            hint = "name it <name>_mask.tif or <name>_mask.nii.gz"
            raise UserError("feedback must have a mask beside every image", hint=hint)
        values = [int(value) for value in np.unique(case.mask)]
        if not set(values) <= {0, *labels}:
            choices = [f"{value}: {name}" for value, name in labels.items()]
            raise UserError("the labels of a corrected mask must be the model's", values, ["0: no tumor", *choices])
        key = self.key_of(patient)
        content = _content(case, key, correction)
        with self._one_at_a_time():
            for waiting in self.entries() if content is not None else ():
                if waiting.get("content") == content:
                    return waiting["id"]
            came = self._came_today()
            if len(came) >= self.per_day:
                raise QuotaUsed(f"this endpoint takes at most {self.per_day} studies of feedback a day")
            entry = self._write(case, key, labels, correction, content)
            atomic.write_json(self.folder / _CAME, [*came, time.time()])
        return entry

    def _came_today(self) -> list[float]:
        """Return the arrival times of the last 24 hours' studies, including those accepted or rejected since."""
        path = self.folder / _CAME
        came = [float(time_s) for time_s in atomic.read_json(path)] if path.is_file() else []
        came = came or [entry["received"] for entry in self.entries()]
        return [time_s for time_s in came if time_s > time.time() - _DAY_S]

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Lock out other gateways of this home, so that no two use the same slot of the quota."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(
        self, case: Case, key: str, labels: Mapping[int, str], correction: Correction, content: str | None
    ) -> str:
        entry = secrets.token_hex(6)
        with atomic.new_folder(self.quarantine / entry) as working:
            kind = write_case(case, key, working / "case", labels)
            read_back(working / "case", key, case, labels)
            assert case.mask is not None
            record = FeedbackEntry(
                id=entry,
                patient=key,
                kind=kind,
                received=time.time(),
                slices=case.shape[0],
                labeled_px=int(np.count_nonzero(case.mask)),
                labels={str(value): name for value, name in labels.items()},
            )
            if content is not None:
                record["content"] = content
            if correction.reader and correction.reader.strip():
                record["reader"] = correction.reader.strip()
            if correction.version is not None:
                record["version"] = correction.version
            atomic.write_json(working / "entry.json", record)
        return entry

    def entries(self) -> list[FeedbackEntry]:
        """Return the entries in quarantine, oldest first."""
        records = [_read_entry(path.parent) for path in self.quarantine.glob("[0-9a-f]*/entry.json")]
        return sorted(records, key=lambda record: record["received"])

    def accept(self, entry: str) -> Path:
        """Make an entry a labeled case of the cohort `accepted/KIND` and return the case's folder.

        The reader, the time and the corrected version are recorded in `corrections/`.

        Raises:
            UserError: If there is no such entry.
        """
        quarantined = self._find(entry)
        record = _read_entry(quarantined)
        cohort = self._cohort_for(record)
        # Unique over all cohorts, since one model may train on corrections from all of them.
        numbers = [int(path.name[-8:]) for path in self.accepted.glob(f"*/{record['patient']}_[0-9]*")]
        # The number takes the place of the date in an LGG case's name, so that all cases of a person share the patient.
        target: Path = cohort / f"{record['patient']}_{max(numbers, default=0) + 1:08d}"
        for path in sorted((quarantined / "case").iterdir()):
            path.rename(path.with_name(path.name.replace(record["patient"], target.name, 1)))
        atomic.write_json(self._record_of(target.name), {**record, "accepted": time.time()})
        (quarantined / "case").rename(target)
        shutil.rmtree(quarantined)
        return target

    def accepted_cohorts(self) -> list[Cohort]:
        """Return the accepted cases, as one cohort per kind and label meaning."""
        folders = sorted(self.accepted.iterdir()) if self.accepted.is_dir() else []
        return [open_cohort(folder) for folder in folders if any(path.is_dir() for path in folder.iterdir())]

    def accepted_at(self, case_id: str) -> float:
        """Return when a case was accepted (POSIX, s); 0 if version 0.1 accepted it."""
        path = self._record_of(case_id)
        return float(atomic.read_json(path)["accepted"]) if path.is_file() else 0.0

    def _record_of(self, case_id: str) -> Path:
        return self.folder / "corrections" / f"{case_id}.json"

    def _cohort_for(self, record: FeedbackEntry) -> Path:
        """Return the folder of the cohort with an entry's kind and label meanings."""
        labels = {int(value): name for value, name in record.get("labels", {"1": "tumor"}).items()}
        for number in itertools.count(1):
            cohort = self.accepted / (record["kind"] if number == 1 else f"{record['kind']}.{number}")
            cohort.mkdir(parents=True, exist_ok=True)
            if record["kind"] != "lgg":
                declare(cohort, labels)
            if record["kind"] == "lgg" or read_roles(cohort).labels == labels:
                return cohort
        raise AssertionError

    def reject(self, entry: str) -> None:
        """Delete an entry; raises `UserError` if it does not exist."""
        shutil.rmtree(self._find(entry))

    def _find(self, entry: str) -> Path:
        folder = self.quarantine / entry
        if not _ENTRY.match(entry) or not (folder / "entry.json").is_file():
            waiting = [record["id"] for record in self.entries()][:20]
            hint = None if waiting else "no feedback is waiting"
            raise UserError(f"no feedback {entry!r} is in quarantine", entry, waiting, hint=hint)
        return folder

    def key_of(self, patient: str) -> str:
        """Return the key of a person, which begins the names of accepted cases."""
        path = self.folder / "patient.key"
        if not path.is_file():
            with self._one_at_a_time():
                if not path.is_file():
                    atomic.write_bytes(path, secrets.token_bytes(32), mode=0o600)
        secret = path.read_bytes()
        if len(secret) != 32:
            raise UserError("the key of patients must have 32 bytes", f"{len(secret)} bytes", file=path)
        return (
            "P"
            + hmac.new(secret, unicodedata.normalize("NFC", patient.strip()).encode(), hashlib.sha256).hexdigest()[:16]
        )


def _content(case: Case, key: str, correction: Correction) -> str | None:
    """Return a digest of who corrected whose study how; None for a nameless reader, who may be two people."""
    if not correction.reader or not correction.reader.strip():
        return None
    digest = hashlib.blake2b(f"{key} {correction.reader.strip()} {case.shape}".encode(), digest_size=16)
    for values in (case.image, case.mask):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _read_entry(folder: Path) -> FeedbackEntry:
    return cast(FeedbackEntry, atomic.read_json(folder / "entry.json"))
