"""The public data sets, fetched through kagglehub. Knows their names there and nothing of their content."""

import shutil
from pathlib import Path
from typing import Any

from glioflow.atomic import new_folder
from glioflow.errors import UserError, unknown_name

# Name at Kaggle, and the folder in it that holds the cases.
SETS = {
    "lgg": ("mateuszbuda/lgg-mri-segmentation", "kaggle_3m"),
    "brats2020": ("awsaf49/brats20-dataset-training-validation", "BraTS2020_TrainingData"),
}


def download(name: str, out: Path, *, fetch: Any = None) -> Path:
    """Fetch a public data set into `out`, which appears whole or not at all.

    Args:
        name: Key in `SETS`.
        out: Folder to make.
        fetch: From a name at Kaggle to the local folder it was put in; None is `kagglehub.dataset_download`.

    Returns:
        `out`.

    Raises:
        UserError: If `out` is not new, or Kaggle cannot be reached or refuses; it says how to fetch by hand.
    """
    if name not in SETS:
        raise unknown_name("data set", name, SETS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("a data set is downloaded into a new or empty folder", out)
    handle, inner = SETS[name]
    try:
        if fetch is None:
            import kagglehub

            fetch = kagglehub.dataset_download
        source = Path(fetch(handle))
    except Exception as error:  # no network, no account, no such set: the way out is the same
        raise UserError(
            f"{name} comes from Kaggle, which could not be reached ({type(error).__name__}): in a browser, download "
            f"the data set {handle}, unpack it, and give the folder {inner} to glioflow",
            " ".join(str(error).split())[:160] or None,
        ) from error
    found = next((path for path in sorted(source.rglob(inner)) if path.is_dir()), source)
    with new_folder(out) as folder:
        shutil.copytree(found, folder, dirs_exist_ok=True)
    return out
