"""The command line: one thin verb per capability, which parses, calls and prints."""


def main() -> None:
    """Run the command line."""
    from glioflow.cli.verbs import app
    from glioflow.cluster import silence

    silence()
    app()
