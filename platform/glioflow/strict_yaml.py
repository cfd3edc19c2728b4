"""YAML as people write it: 1e-3 is a number, duplicate keys are mistakes, and sizes are limited."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from glioflow.errors import UserError, one_line

# Beginning of the rule about a text that is no YAML; its problem and place follow.
INVALID = "the text must be valid YAML: "
_MOST_DEEP, _MOST_VALUES, _MOST_LETTERS = 100, 100_000, 2**18
# Values that YAML 1.1 reads in base 8 or 60, and people as base 10, a time or a name.
_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """A loader that fixes PyYAML (YAML 1.1), which reads 1e-3 as text and silently takes the last of duplicate keys."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MOST_DEEP:
            raise UserError("the text is nested too deeply to be read", f"more than {_MOST_DEEP} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            is_merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = key_node.value if is_merge else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise UserError(f"the key {key!r} appears twice, in lines {lines[key]} and {line}", hint="remove one")
            lines[key] = line
        return super().construct_mapping(node, deep)


def _construct_number(loader: _Loader, node: yaml.ScalarNode) -> float:
    whole = node.tag == "tag:yaml.org,2002:int"
    value: float = (loader.construct_yaml_int if whole else loader.construct_yaml_float)(node)
    if _OTHER_BASE.fullmatch(node.value) and (":" in node.value or int(node.value.replace("_", "")) != value):
        rule = f"the text has the number {node.value} in line {node.start_mark.line + 1}, which YAML reads as {value:g}"
        raise UserError(rule, hint="put it in quotes if it is a name, or write it without the leading 0 or the colon")
    return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        UserError: If it is not YAML, is too deep or too large, a mapping has a duplicate key, or a number is in a base
            that people do not mean; with the line.
    """
    if len(text) > _MOST_LETTERS:
        raise UserError(f"the text must have at most {_MOST_LETTERS} letters", len(text), hint="give a smaller file")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if _expanded(node, {}) > _MOST_VALUES:
            raise UserError("the text has too many values", f"more than {_MOST_VALUES} with what its aliases repeat")
        return None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or str(error.context)).replace("'<stream end>'", "the end of the text")
        line = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise UserError(f"{INVALID}{problem}{line}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{INVALID}{one_line(error)}") from None
    except (AttributeError, LookupError, TypeError) as error:  # a tag such as !!timestamp before another text
        raise UserError("the text has a tag that does not suit its value", hint="remove the tag") from error
    except ValueError as error:  # a date such as 2024-13-01
        raise UserError(f"the text has an invalid value: {error}", hint="put it in quotes") from None


def _expanded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of values in a node after expanding its aliases."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0  # while it is counted
        inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in inner)
    elif not known[id(node)]:
        raise UserError("an alias must not be inside its own anchor", hint="remove it")
    return known[id(node)]
