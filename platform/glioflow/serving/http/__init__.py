"""The endpoint's HTTP side: limits, uploads, routes, answers, feedback, metrics."""
