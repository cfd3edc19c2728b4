"""The application that every module of verbs adds its own to."""

import typer

from glioflow.cli.data_verbs import data_app

app = typer.Typer(
    name="glioflow",
    help="Honest, patient-level brain tumor segmentation on Ray and MLflow. Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
survival_app = typer.Typer(help="The survival stage.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(survival_app, name="survival")
