"""Writes the reference pages that follow from the code: commands, keys of an experiment, modules."""

import ast
import inspect
import json
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import glioflow

HERE = Path(__file__).parents[1]
OUT = HERE / "reference" / "generated"
PACKAGES = (
    *("api", "data", "models", "training", "evaluation", "features", "survival", "config", "bundle", "tracking"),
    *("promotion", "audit", "runs", "serving", "page", "reports", "cluster"),
)


def setup(app: Any) -> dict[str, bool]:
    """Write before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: write_all())
    return {"parallel_read_safe": True}


def write_all() -> None:
    """Write every page, and touch none that stays as it was."""
    pages = {"python-api.md": _python_api(), "command-line.md": _command_line(), "experiment-file.md": _experiment()}
    pages |= {f"packages/{name}.md": _package(name) for name in PACKAGES if _exists(name)}
    OUT.mkdir(exist_ok=True)
    (OUT / "packages").mkdir(exist_ok=True)
    for path in OUT.rglob("*.md"):
        if str(path.relative_to(OUT)) not in pages:
            path.unlink()
    for name, text in pages.items():
        path = OUT / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


# The Python API


def _python_api() -> str:
    names = [name for name in getattr(glioflow, "__all__", ()) if not name.startswith("_")]
    functions = [name for name in names if name[0].islower()]
    classes = [name for name in names if name[0].isupper()]
    parts = [
        "# Python API",
        "`import glioflow as gf` takes no heavy library; each function imports what it needs. The examples on the "
        "other pages use these functions.",
        *(_directive(f"py:currentmodule:: glioflow\n\n.. autofunction:: glioflow.{name}") for name in functions),
        *(_directive(f"autoclass:: glioflow.{name}\n   :members:") for name in classes),
    ]
    return "\n\n".join(parts) + "\n"


# Modules


def _exists(name: str) -> bool:
    return (Path(glioflow.__file__).parent / name).is_dir()


def _package(name: str) -> str:
    """Describe a package: what each of its modules holds, then the names that it gives to other packages."""
    root = Path(glioflow.__file__).parent
    rows = []
    for path in sorted((root / name).rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if text and module != name:
            rows.append((f"`{module}`", _escape(" ".join(text.split("\n\n")[0].split()))))
    package = import_module(f"glioflow.{name}")
    parts = [f"# `{name}`", _escape(inspect.cleandoc(package.__doc__ or "")), _table(("module", "contents"), rows)]
    public = [each for each in getattr(package, "__all__", ()) if _documented(getattr(package, each))]
    if public:
        parts.append(f"## Names in `glioflow.{name}`")
    for each in public:
        kind = "autoclass" if inspect.isclass(getattr(package, each)) else "autofunction"
        options = "\n   :members:" if kind == "autoclass" else ""
        parts.append(_directive(f"{kind}:: glioflow.{name}.{each}{options}\n   :no-index:"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _documented(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def _directive(text: str) -> str:
    return f"```{{eval-rst}}\n.. {text}\n```"


# The command line


def _command_line() -> str:
    import typer

    from glioflow import cli

    app = getattr(cli, "app", None)
    if app is None or inspect.ismodule(app):
        app = import_module("glioflow.cli.app").app
        for found in pkgutil.iter_modules(cli.__path__):
            import_module(f"glioflow.cli.{found.name}")
    group = typer.main.get_command(app)
    parts = [
        "# Command line",
        "`glioflow COMMAND --help` says the same. Every command that gives results takes `--json`: the last line on "
        "stdout is then one JSON object, and progress goes to stderr. Exit code 2 means a mistake in the input, 1 a "
        "run that failed, 130 a run that Ctrl-C or SIGTERM ended.",
        *_commands(group, "glioflow"),
    ]
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, prefix: str) -> list[str]:
    parts = []
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            parts += _commands(command, f"{prefix} {name}")
            continue
        parts.append(f"## `{prefix} {name}`")
        parts.append(_escape(" ".join((command.help or "").split())))
        rows = [_parameter(each) for each in command.params if not getattr(each, "hidden", False)]
        if rows:
            parts.append(_table(("parameter", "default", "meaning"), rows))
    return parts


def _parameter(parameter: Any) -> tuple[str, str, str]:
    option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if option else parameter.name
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    shown = "required" if parameter.required else f"`{default}`" if plain else ""
    return f"`{name}`", shown, _escape(getattr(parameter, "help", None) or "")


# The experiment file


def _experiment() -> str:
    from glioflow.config import Experiment

    parts = [
        "# Experiment file",
        "One YAML file is one experiment. Every key has a default, and an unknown key is an error. On the command "
        "line, `-o section.key=value` changes one key. `experiments/` holds examples.",
    ]
    plain = []
    sections = []
    for name, field in Experiment.model_fields.items():
        models = _models(field.annotation)
        if name == "preprocess":
            sections.append(_steps(models))
        elif models:
            sections.append(_section(name, models[0]))
        else:
            plain.append((f"`{name}`", _default(field), ""))
    parts += [_table(("key", "default", "meaning"), plain), *sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(name: str, model: Any, level: int = 2) -> str:
    meanings = _attributes(model)
    rows, inner = [], []
    for key, field in model.model_fields.items():
        models = _models(field.annotation)
        nested = len(models) == 1 and not field.is_required() and isinstance(field.default, models[0])
        if nested:
            inner.append(_section(f"{name}.{key}", models[0], level))
            continue
        rows.append((f"`{key}`", _default(field), _escape(meanings.get(key, "")) + _values(field.annotation)))
    head = f"{'#' * level} `{name}`\n\n{_escape(_summary(model))}\n\n"
    return head + _table(("key", "default", "meaning"), rows) + "".join(f"\n\n{each}" for each in inner)


def _steps(models: list[Any]) -> str:
    rows = []
    for model in models:
        keys = [
            f"`{key}` ({_default(field) or 'required'})" for key, field in model.model_fields.items() if key != "step"
        ]
        rows.append((f"`{model.model_fields['step'].default}`", ", ".join(keys), _escape(_summary(model))))
    head = "## `preprocess`\n\nA list of steps, each `{step: NAME, ...}`, in the order in which they run.\n\n"
    return head + _table(("step", "keys (default)", "meaning"), rows)


def _models(annotation: Any) -> list[Any]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]


def _default(field: Any) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, default=str)}`"


def _values(annotation: Any) -> str:
    """List the values of a key that has few."""
    literals = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal]
    values = [value for each in literals for value in get_args(each)]
    return f" Values: {', '.join(f'`{value}`' for value in values)}." if values else ""


def _summary(model: Any) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split())


def _attributes(model: Any) -> dict[str, str]:
    text = inspect.cleandoc(model.__doc__ or "").partition("Attributes:")[2]
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        head = re.match(r"    (\w+): (.*)", line)
        if head:
            key = head[1]
            found[key] = head[2]
        elif key and line.strip():
            found[key] += f" {line.strip()}"
    return found


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _escape(text: str) -> str:
    """Keep cells and paragraphs free of Markdown's and MyST's own signs."""
    parts = re.split(r"(`[^`]*`)", text)
    safe = [part if n % 2 else re.sub(r"([*_<{\[$])", r"\\\1", part) for n, part in enumerate(parts)]
    return "".join(safe).replace("|", r"\|")
