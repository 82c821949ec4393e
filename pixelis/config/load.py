"""Load a checked configuration from a YAML file and `section.key value`, and write it back."""

import copy
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelis.config.kinds import as_section, split_optional, words_of
from pixelis.config.section import NONE_WORDS, Section, SectionType, show, validate
from pixelis.config.space import SECTION, merge_space
from pixelis.config.yaml_text import dump_yaml, parse_yaml, read_mapping
from pixelis.errors import ConfigError

Scalar = bool | int | float | str | None


def load_config(
    kind: type[SectionType],
    path: Path | None,
    overrides: Sequence[tuple[str, str]] | Mapping[str, Any] = (),
) -> SectionType:
    """Build a configuration: defaults, replaced by a file, replaced by dotted keys.

    Args:
        kind: the file's class.
        path: a YAML file; None: the defaults alone.
        overrides: dotted keys and their values. A text is parsed by the type of its key, as on a
            command line; a mapping is merged into the section.

    Raises:
        ConfigError: in one line, with the key, the rule, the value and its origin.
    """
    pairs = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    tree = {} if path is None else read_mapping(path)
    for key, value in pairs:
        _override(kind, tree, key, value)
    given = [key for key, _ in pairs]
    return validate(kind, tree, lambda key: _origin(key, path, given))


def _origin(key: str, path: Path | None, given: Sequence[str]) -> str:
    """Return the origin of a key: the command line if its keys include it, else the file."""
    for name in given:
        if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}."):
            return "the command line"
    return str(path)


def flatten(config: Section) -> dict[str, Scalar]:
    """Return the configuration as dotted keys and values; a list becomes one JSON text."""
    flat: dict[str, Scalar] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{key}.{name}" if key else name, inner)
        else:
            flat[key] = json.dumps(value) if isinstance(value, list | tuple) else value

    add("", config.model_dump())
    return flat


def to_yaml(config: Section) -> str:
    """Return the complete configuration as YAML that `load_config` reads back unchanged."""
    return dump_yaml(config.model_dump())


def _override(kind: type[Section], tree: dict[Any, Any], key: str, value: Any) -> None:
    """Write one dotted key into the tree of a file."""
    if isinstance(value, str):
        value = _parse_text(key, value, _annotation_at(kind, key))
    else:
        value = copy.deepcopy(value)
    *sections, leaf = key.split(".")
    if key.split(".")[0] == SECTION and SECTION in kind.model_fields and isinstance(tree, dict):
        space = tree.get(SECTION, {})
        if isinstance(space, dict) and (sections or isinstance(value, dict)):
            tree[SECTION] = merge_space(space, key.split(".")[1:], value)
            return
    node = tree
    for depth, section in enumerate(sections, 1):
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            name = ".".join(sections[:depth])
            raise ConfigError(f"{key} cannot be set: {name} is no section but {show(node)}")
    _merge(node, leaf, value)


def _annotation_at(kind: type[Section], key: str) -> Any:
    """Return the type of a dotted key: Any in an open section, None where there is no such key."""
    annotation: Any = kind
    for name in key.split("."):
        section = as_section(annotation)
        if section is None:
            return Any if annotation is Any or typing.get_origin(annotation) is dict else None
        field = section.model_fields.get(name)
        annotation = field.annotation if field else None
    return annotation


def _parse_text(key: str, text: str, annotation: Any) -> Any:
    """Parse a text of the command line by the type of its key."""
    inner, _ = split_optional(annotation)
    is_choice = inner not in (int, float) and words_of(annotation)
    if inner in (str, None) or is_choice:
        return text
    if text.strip().lower() in NONE_WORDS:
        return None
    return parse_yaml(text, f"{key}: {show(text)}")


def _merge(node: dict[Any, Any], name: Any, value: Any) -> None:
    if isinstance(value, dict) and isinstance(node.get(name), dict):
        for inner, inner_value in value.items():
            _merge(node[name], inner, inner_value)
    else:
        node[name] = value
