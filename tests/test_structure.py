"""The import structure: no module imports itself through others, local imports included."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "platform" / "glioflow"


@cache
def trees() -> dict[str, ast.AST]:
    """Return every module of the package, parsed, by name."""
    return {
        ".".join(("glioflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
            path.read_text()
        )
        for path in PACKAGE.rglob("*.py")
    }


def imported(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names; none for another statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        names = (f"{node.module}.{alias.name}" for alias in node.names)
        return [name if name in trees() else node.module for name in names]
    return []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import circle, in order; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def test_no_module_imports_itself_through_others():
    graph = {
        name: {other for node in ast.walk(tree) for other in imported(node) if other in trees()} - {name}
        for name, tree in trees().items()
    }
    assert len(graph) > 150
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# One module for each library that has no public way; it says why.
PRIVATE_PARTS = {"glioflow.cluster.ray_internals", "glioflow.tracking.mlflow_internals"}
# Modules without an underscore that their library's reference does not list.
UNLISTED = ("mlflow.store", "mlflow.utils", "mlflow.protos", "mlflow.server")


def private_parts(tree: ast.AST) -> Iterator[str]:
    """Give what a module takes from others under a name that begins with one underscore."""

    def private(name: str) -> bool:
        return name.startswith("_") and not name.startswith("__")

    nodes = list(ast.walk(tree))
    own = {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(private(name) for name in names) or node.module.startswith(UNLISTED):
                yield ast.unparse(node)


def test_private_parts_of_libraries_are_used_only_where_there_is_no_public_way():
    assert {name for name, tree in trees().items() if list(private_parts(tree))} == PRIVATE_PARTS


# What takes a process a tenth of a second, or tens of megabytes, to import.
HEAVY = {
    *(
        "PIL",
        "SimpleITK",
        "albumentations",
        "cv2",
        "fsspec",
        "grpc",
        "highdicom",
        "idc_index",
        "jinja2",
        "kagglehub",
        "matplotlib",
    ),
    *(
        "mlflow",
        "monai",
        "h5py",
        "nibabel",
        "openvino",
        "optuna",
        "pandas",
        "pyarrow",
        "pydicom",
        "radiomics",
        "ray",
        "requests",
    ),
    *("rich", "safetensors", "scipy", "segmentation_models_pytorch", "skimage", "sklearn", "sqlalchemy", "tifffile"),
    *("timm", "torch", "urllib3", "uvicorn"),
}


def statements(tree: ast.AST, *, local: bool) -> Iterator[ast.AST]:
    """Give the statements of functions or, where not `local`, those that importing the module runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from ast.walk(node) if local else ()
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from () if local else (node,)
            yield from statements(node, local=local)


@cache
def below(module: str) -> frozenset[str]:
    """Return what importing a module imports by itself."""
    return frozenset(name for node in statements(trees()[module], local=False) for name in imported(node))


def loads_heavy(name: str, visited: set[str]) -> bool:
    """Return whether importing a module loads a heavy library."""
    if name not in trees():
        return name.partition(".")[0] in HEAVY
    if name in visited:
        return False
    visited.add(name)
    return any(loads_heavy(other, visited) for other in below(name))


def test_a_local_import_keeps_a_heavy_library_out_of_a_process():
    light = [
        f"{module}:{node.lineno} {name}"
        for module, tree in trees().items()
        for node in statements(tree, local=True)
        for name in imported(node)
        if not loads_heavy(name, set())
    ]
    assert light == []


def texts(node: ast.AST) -> Iterator[str]:
    """Give the texts of a module without its docstrings; what an f-string fills in is `{}`."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        for inner in ast.iter_child_nodes(node):
            yield from texts(inner)


def test_a_message_names_an_option_as_the_callers_door_takes_it():
    """Only whole commands, between backticks or for who starts an endpoint, are written as on the command line."""
    commands = re.compile(r"`[^`]*`|start \w+( \w+)? with --[a-z-]+|mlflow ui .*")
    spelled = [
        f"{module}: {text}"
        for module, tree in trees().items()
        for text in texts(tree)
        if not module.startswith("glioflow.cli") and re.search(r"(?<![\w-])--[a-z]", commands.sub("", text))
    ]
    assert spelled == []
