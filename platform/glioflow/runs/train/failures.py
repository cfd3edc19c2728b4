"""Why a training failed, in one line."""

from glioflow import cluster
from glioflow.errors import GlioflowError, causes_of


def cause_of(error: BaseException) -> str:
    """Return the last line that says what went wrong, without Ray's wrapping."""
    if (shortage := cluster.memory_shortage(error)) is not None:
        return shortage
    if (own := next((each for each in causes_of(error) if isinstance(each, GlioflowError)), None)) is not None:
        return str(own)
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    messages = [line for line in lines if ":" in line and not line.startswith(("File", "ray::", "at "))]
    return (messages or lines or [type(error).__name__])[-1]
