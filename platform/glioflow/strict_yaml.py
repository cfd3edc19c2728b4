"""YAML as people write it: 1e-3 is a number, and a key that stands twice is a mistake."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from glioflow.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML (YAML 1.1) reads 1e-3 as text, and of a key that stands twice it takes the last value in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise UserError(f"the key {key!r} stands twice, in lines {lines[key]} and {line}", hint="remove one")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        UserError: If it is no YAML, or a key stands twice in a mapping; with the line.
    """
    try:
        return yaml.load(text, _Loader)
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(f"the text must be YAML: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise UserError("the text is nested too deeply to be read") from None
    except ValueError as error:  # a date such as 2024-13-01
        raise UserError(f"the text has a value that cannot be: {error}", hint="put it in quotes") from None
