"""The corrected masks that callers of the endpoint sent back."""

from dataclasses import dataclass

from glioflow.api.results import Result
from glioflow.reports.tables import Table
from glioflow.serving.http.feedback import Feedback, FeedbackEntry


@dataclass(frozen=True)
class FeedbackList(Result):
    """The corrected masks in quarantine."""

    feedback: list[FeedbackEntry]

    def tables(self) -> list[Table]:
        """Return the entries, a row each."""
        head = ["id", "patient", "kind", "slices", "labeled_px"]
        return [Table("", head, [[entry.get(key) for key in head] for entry in self.feedback])]

    def notes(self) -> list[str]:
        """Return a line if there is none."""
        return [] if self.feedback else ["no corrected mask is in quarantine"]


@dataclass(frozen=True)
class AcceptedFeedback(Result):
    """A corrected study that became a labeled case: its path."""

    path: str

    def notes(self) -> list[str]:
        """Say how a model learns from it."""
        return ["`glioflow retrain NAME` trains the champion of a model on it"]


@dataclass(frozen=True)
class RejectedFeedback(Result):
    """A corrected study that was deleted: its id."""

    rejected: str


def list_feedback() -> FeedbackList:
    """List the corrected masks in quarantine."""
    return FeedbackList(Feedback().entries())


def accept_feedback(entry: str) -> AcceptedFeedback:
    """Make a corrected study a labeled case for the next training.

    Args:
        entry: Its id, as `list_feedback` shows it.

    Raises:
        UserError: If no entry has this id.
    """
    return AcceptedFeedback(str(Feedback().accept(entry)))


def reject_feedback(entry: str) -> RejectedFeedback:
    """Delete a corrected study from quarantine.

    Args:
        entry: Its id, as `list_feedback` shows it.

    Raises:
        UserError: If no entry has this id.
    """
    Feedback().reject(entry)
    return RejectedFeedback(entry)
