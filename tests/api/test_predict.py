"""A loaded model answers about a study in whatever form it comes, and as the command line and the endpoint do."""

from test_prediction import described_by  # noqa: F401
