"""The leakage audit: what makes a score better than it should be, in data and splits, and by how much."""

from glioflow.audit.crossed import find_shared_images
from glioflow.audit.images import find_image_leaks
from glioflow.audit.inputs import find_filled_columns, find_input_leaks, find_preparation_leaks
from glioflow.audit.leaks import Leak, find_selection_leaks, find_shared_patients, find_split_leaks

__all__ = [
    "Leak",
    "find_filled_columns",
    "find_image_leaks",
    "find_input_leaks",
    "find_preparation_leaks",
    "find_selection_leaks",
    "find_shared_images",
    "find_shared_patients",
    "find_split_leaks",
]
