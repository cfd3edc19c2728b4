"""The Python API: what the command line, the page and a notebook call."""
