"""Comparisons of masks, channels, labels and images between the cases of a cohort."""

from collections import Counter
from collections.abc import Sequence

from glioflow.data.checks.case_checks import CaseReport, Problem
from glioflow.data.formats.file_roles import INCOMPLETE
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.quantities import count

# Number of cases from which a label that no case has is reported.
_ENOUGH = 8


def find_unlabeled(cases: tuple[CaseFiles, ...], reports: list[CaseReport]) -> list[Problem]:
    """Report the cases without a mask if others have one."""
    if not any(report.labeled for report in reports):
        return []
    return [
        Problem("warning", case.id, "a case has no mask, and others have one", "no mask")
        for case, report in zip(cases, reports, strict=True)
        if report.labeled is False
    ]


def find_other_channels(cases: tuple[CaseFiles, ...], reports: list[CaseReport]) -> list[Problem]:
    """Report the cases whose channels differ from those of most cases, since a network needs the same for all."""
    by_case = [tuple(sorted(report.channels)) for report in reports]
    counts = Counter(channels for channels in by_case if channels)
    if len(counts) < 2:
        return []
    usual, _ = counts.most_common(1)[0]
    rule = "all cases of a cohort must have the same channels"
    return [
        Problem(
            "error",
            case.id,
            f"{rule}; {INCOMPLETE}" if set(usual) - set(channels) else rule,
            f"{', '.join(channels)}, and most have {', '.join(usual)}",
        )
        for case, channels in zip(cases, by_case, strict=True)
        if channels and channels != usual
    ]


def find_unused_labels(cohort: Cohort, reports: Sequence[CaseReport]) -> list[Problem]:
    """Report declared labels that no mask has, if all masks were read: the label scheme may be wrong."""
    if len(cohort.labels) < 2 or len(reports) < _ENOUGH or not any(report.labeled for report in reports):
        return []
    present = {value for report in reports for value in report.labels}
    rule = "a label of the cohort should be in a mask"
    unused = {value: name for value, name in cohort.labels.items() if value not in present}
    return [Problem("warning", cohort.path.name, rule, f"{value} {name} is in none") for value, name in unused.items()]


def find_shared_images(cases: tuple[CaseFiles, ...], reports: list[CaseReport]) -> list[Problem]:
    """Report every pair of cases with a slice in common."""
    first: dict[bytes, tuple[CaseFiles, int]] = {}
    pairs: dict[tuple[str, str], list[int]] = {}
    for case, report in zip(cases, reports, strict=True):
        for number, digest in report.digests:
            owner, _ = first.setdefault(digest, (case, number))
            if owner.id != case.id:
                pairs.setdefault((case.id, owner.id), []).append(number)
    rule = "two cases must not have the same image"
    return [
        Problem("error", one, rule, f"{count(len(numbers), 'slice')} also in {other}, the first is {numbers[0]}")
        for (one, other), numbers in pairs.items()
    ]
