"""The import structure: no module imports itself through others, local imports included."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "platform" / "glioflow"


def modules() -> dict[str, Path]:
    paths = PACKAGE.rglob("*.py")
    return {
        ".".join(("glioflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in paths
    }


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else node.module


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
    known = modules()
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    assert len(graph) > 150
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# One module for each library that has no public way; it says why.
PRIVATE_PARTS = {"cluster/ray_internals.py"}


def private_parts(path: Path) -> Iterator[str]:
    """Give what a module takes from others under a name that begins with one underscore."""

    def private(name: str) -> bool:
        return name.startswith("_") and not name.startswith("__")

    nodes = list(ast.walk(ast.parse(path.read_text())))
    own = {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(private(name) for name in names):
                yield ast.unparse(node)


def test_private_parts_of_libraries_are_used_only_where_there_is_no_public_way():
    used = {path.relative_to(PACKAGE).as_posix(): list(private_parts(path)) for path in PACKAGE.rglob("*.py")}
    assert {name for name, parts in used.items() if parts} == PRIVATE_PARTS
