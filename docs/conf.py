"""Sphinx builds the site from these pages and from the package's docstrings: `make docs`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(Path(__file__).parent / "_ext")]

from glioflow import __version__  # noqa: E402

project = "GlioFlow"
copyright = "2026, the GlioFlow maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "generated_pages"]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["config.cache"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The libraries below take seconds to import, and no docstring needs them.
autodoc_mock_imports = [
    "albumentations",
    "cv2",
    "fastapi",
    "highdicom",
    "matplotlib",
    "mlflow",
    "monai",
    "openvino",
    "optuna",
    "ray",
    "segmentation_models_pytorch",
    "skimage",
    "sklearn",
    "skops",
    "timm",
    "torch",
    "torchvision",
]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "GlioFlow"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"announcement": "Research software, not for clinical use."}
