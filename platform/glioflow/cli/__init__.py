"""The command line: one thin verb per capability, which parses, calls and prints."""


def main() -> None:
    """Run the command line."""
    from glioflow.cli import (  # noqa: F401  (each adds its verbs to the application)
        audit_verbs,
        evaluation_verbs,
        feature_verbs,
        registry_verbs,
        run_verbs,
        serving_verbs,
    )
    from glioflow.cli.app import app
    from glioflow.cli.output import told
    from glioflow.cluster import silence

    with told():
        silence()
    app()
