"""The leakage audit: what makes a score better than it should be, in data and splits, and by how much."""

from glioflow.audit.crossed import cases_of, find_in_other_cohorts, find_shared_images, read_aliases
from glioflow.audit.images import find_image_leaks
from glioflow.audit.inputs import find_filled_columns, find_input_leaks, find_preparation_leaks
from glioflow.audit.leaks import Leak, find_selection_leaks, find_shared_patients, find_split_leaks

__all__ = [
    "Leak",
    "cases_of",
    "find_filled_columns",
    "find_image_leaks",
    "find_in_other_cohorts",
    "find_input_leaks",
    "find_preparation_leaks",
    "find_selection_leaks",
    "find_shared_images",
    "find_shared_patients",
    "find_split_leaks",
    "read_aliases",
]
