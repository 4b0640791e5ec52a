"""A YAML file of flags, with the line of each key. The only module that needs PyYAML, and only for such a file."""

from __future__ import annotations

from typing import Any

import yaml

from swift.core.errors import SwiftError
from swift.params.values import NOTHING, Plain

_SCALARS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_TEXT = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "value", "merge"))


def entries(path: str, text: str) -> list[tuple[str, int, Any]]:
    """Key, line and raw value (see `values.from_file`) of each flag.

    Unquoted scalars stay text: the flag decides what they mean, so that `1e-4` is a number and `no` can be a strategy.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.MappingNode):
            raise SwiftError("a file of flags holds lines `flag: value`", where=f"{path}:1")
        for _, value in root.value:
            _refuse_repeated(path, value)
        return [(_key(key), key.start_mark.line + 1, _raw(loader, value)) for key, value in root.value]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SwiftError(f"not valid YAML: {error.problem or error.context}", where=f"{path}{line}") from error
    except yaml.YAMLError as error:
        raise SwiftError(f"not valid YAML: {error}", where=path) from error
    except RecursionError as error:
        raise SwiftError("the file of flags is nested too deeply, or holds itself", where=path) from error
    finally:
        if loader is not None:
            loader.dispose()


def _refuse_repeated(path: str, node: yaml.Node) -> None:
    """Raise SwiftError for a key that stands twice in one mapping: YAML keeps the last, and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated(path, item)
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if _key(key) in keys:
                where = f"{path}:{key.start_mark.line + 1}"
                raise SwiftError(f"the key {key.value} stands twice", where=where, next="keep one of the two")
            keys.add(_key(key))
            _refuse_repeated(path, value)


def _key(node: yaml.Node) -> str:
    """A key as text. Raises yaml.MarkedYAMLError for lists and mappings."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.MarkedYAMLError(problem="a key is a text", problem_mark=node.start_mark)
    return node.value


def _raw(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        if node.style is not None:
            return node.value
        return None if node.value in NOTHING or node.value in ("", "~") else Plain(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_raw(loader, item) for item in node.value]
    return _object(loader, node)


def _object(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """What JSON can hold, inside a mapping. Raises yaml.MarkedYAMLError for anything else."""
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        return {_key(key): _object(loader, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_object(loader, item) for item in node.value]
    if node.tag in _TEXT:
        return node.value
    try:
        if node.tag in _SCALARS:
            return loader.construct_object(node)
    except (ValueError, KeyError) as error:
        what = f"`{node.value[:80]}` is not what it looks like"
        raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark) from error
    raise yaml.MarkedYAMLError(problem=f"JSON holds no {node.tag}", problem_mark=node.start_mark)
