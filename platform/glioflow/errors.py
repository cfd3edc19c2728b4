"""The errors that people see: each says the rule, the value that broke it, and the choices."""

from collections.abc import Iterable


class GlioflowError(Exception):
    """Root of all errors that GlioFlow raises on purpose."""


class UserError(GlioflowError, ValueError):
    """A mistake in what the caller gave: one line, no traceback, exit code 2.

    Attributes:
        rule: What must hold.
        value: What was given instead, as text; None where the rule already says it.
        choices: What would have been accepted, where that can be listed.
    """

    def __init__(self, rule: str, value: object = None, choices: Iterable[object] | None = None) -> None:
        self.rule = rule
        self.value = None if value is None else str(value)
        self.choices = None if choices is None else [str(choice) for choice in choices]
        parts = [rule]
        if self.value is not None:
            parts.append(f"got {self.value}")
        if self.choices is not None:
            parts.append(f"choose one of [{', '.join(self.choices)}]")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between Ray's processes without losing the parts."""
        return (type(self), (self.rule, self.value, self.choices))


class RunFailed(GlioflowError):  # noqa: N818 - named after what happened, as the exit code 1 is
    """A run that started properly and could not be finished: exit code 1."""


def unknown_name(kind: str, name: object, choices: Iterable[object]) -> UserError:
    """Return the error for a name that no registry knows, its choices sorted."""
    return UserError(f"unknown {kind} {name!r}", choices=sorted(str(choice) for choice in choices))
