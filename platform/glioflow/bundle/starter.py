"""The model that ships with the package under the reserved name `starter`, with its own card and license."""

from pathlib import Path

from glioflow.bundle.format import LICENSE, MODEL
from glioflow.errors import UserError

__all__ = ["LICENSE", "STARTER", "check_not_reserved", "find_starter", "starter_folder"]

STARTER = "starter"


def starter_folder() -> Path:
    """Return the path of the bundle in the package, which may not exist."""
    return Path(__file__).parents[1] / STARTER


def find_starter() -> Path:
    """Return the folder of the bundle.

    Raises:
        UserError: If this installation has none.
    """
    folder = starter_folder()
    if not (folder / MODEL).is_file():
        hint = "install GlioFlow with its weights, or make them with experiments/make_starter.py"
        raise UserError("this installation has no starter model", STARTER, hint=hint)
    return folder


def check_not_reserved(name: str) -> None:
    """Refuse `starter` as the name of a user's model."""
    if name == STARTER:
        raise UserError(
            f"{STARTER} is the name of the model that ships with GlioFlow", name, hint="choose another name"
        )
