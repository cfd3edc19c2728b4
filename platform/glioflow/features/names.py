"""Names of the features of a whole tumor, grouped by topic."""

POSITION = (
    "side",
    "midline_distance_px",
    "midline_distance_fraction",
    "brain_fraction",
    "brain_slice_fraction",
    "brain_row_fraction",
    "brain_column_fraction",
)
SPREAD = (
    "centroid_slice",
    "centroid_row_px",
    "centroid_column_px",
    "coordinate_std_slice",
    "coordinate_std_row_px",
    "coordinate_std_column_px",
    "coordinate_std_major_mm",
    "coordinate_std_middle_mm",
    "coordinate_std_minor_mm",
)
BOX = tuple(f"box_{axis}_{end}" for axis in ("slice", "row", "column") for end in ("start", "stop"))
LARGEST = ("largest_component_px", "largest_slice", "largest_slice_area_px")
SOLID = (
    "surface_mm2",
    "sphericity",
    "axis_major_mm",
    "axis_middle_mm",
    "axis_minor_mm",
    "elongation",
    "flatness",
    "max_diameter_mm",
)
MILLIMETERS = (*(name for name in SPREAD if name.endswith("_mm")), *SOLID)
