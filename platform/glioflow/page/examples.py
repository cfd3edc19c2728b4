"""Studies of no real patient that the page offers, made at random, and the same each time."""

from functools import cache
from pathlib import Path

from glioflow.cluster.scratch import study_folder
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg

File = tuple[str, bytes]
NUM_EXAMPLES = 3
_SEED = 7


@cache
def examples(kind: str) -> tuple[tuple[File, ...], ...]:
    """Return name and content of the files of each example that looks like a cohort, `lgg` or `brats`."""
    with study_folder() as folder:
        path = Path(folder) / "cohort"
        if kind == "brats":
            synthesize_brats(path, patients=NUM_EXAMPLES, seed=_SEED, size=120, slices=80)
        else:
            synthesize_lgg(path, patients=NUM_EXAMPLES, seed=_SEED, size=192, slices=(20, 28))
        made = []
        for number, case in enumerate(open_cohort(path).cases, start=1):
            # The names are made as the real cohort's are, and nobody shall take them for those.
            images = [file for file in case.files if not is_mask_name(file.name)]
            made.append(tuple((f.name.replace(case.id, f"synthetic_{number}"), f.read_bytes()) for f in images))
        return tuple(made)
