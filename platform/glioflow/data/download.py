"""The public data sets, downloaded through kagglehub. Knows their names there and nothing about their content."""

import shutil
from collections.abc import Callable
from pathlib import Path

from glioflow.atomic import new_folder
from glioflow.errors import UserError, unknown_name

# Name at Kaggle, and the folder in it that holds the cases.
SETS = {
    "lgg": ("mateuszbuda/lgg-mri-segmentation", "kaggle_3m"),
    "brats2020": ("awsaf49/brats20-dataset-training-validation", "BraTS2020_TrainingData"),
}


def download(name: str, out: Path, *, fetch: Callable[[str], str | Path] | None = None) -> Path:
    """Download a public data set into `out`, which appears complete or not at all.

    Args:
        name: Key in `SETS`.
        out: Folder to make.
        fetch: Takes a name at Kaggle and returns the local folder of its download; None is
            `kagglehub.dataset_download`.

    Returns:
        `out`.

    Raises:
        UserError: If `out` is not new, or Kaggle cannot be reached or refuses; it says how to download by hand.
    """
    if name not in SETS:
        raise unknown_name("data set", name, SETS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not a new or empty folder", out, hint="choose another folder")
    handle, inner = SETS[name]
    try:
        if fetch is None:
            import kagglehub

            fetch = kagglehub.dataset_download
        source = Path(fetch(handle))
    except Exception as error:  # no network, no account or no such set: what to do is the same
        raise UserError(
            f"{name} could not be downloaded from Kaggle ({type(error).__name__})",
            " ".join(str(error).split())[:160] or None,
            hint=f"in a browser, download the data set {handle}, unpack it, and give the folder {inner} to glioflow",
        ) from error
    cases = next((path for path in sorted(source.rglob(inner)) if path.is_dir()), source)
    with new_folder(out) as folder:
        shutil.copytree(cases, folder, dirs_exist_ok=True)
    return out
