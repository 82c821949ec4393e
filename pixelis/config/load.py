"""Load a checked configuration from a YAML file and `section.key value`, and write it back.

PyYAML alone reads 1e-5 as text, uses the last of two equal keys, and has no limits.
"""

import json
import re
import types
import typing
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from pixelis.config.section import (
    NULL_WORDS,
    Section,
    SectionType,
    kinds_of,
    show,
    validate,
    walk_fields,
)
from pixelis.config.space import SECTION, merge_space
from pixelis.errors import ConfigError

Scalar = bool | int | float | str | None

PACKAGE = Path(__file__).parent.parent
FOLDER = "configs"
# Far above any configuration, and still read in seconds.
MAX_CHARACTERS = 200_000
# Limit of values with every *alias expanded: ten lines of aliases can mean a billion values.
MAX_VALUES = 50_000
MAX_DEPTH = 50
MAX_NUMBER = 250  # characters of a number, so that a float can hold it
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
EXPONENT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """A loader that knows EXPONENT."""


class _Dumper(yaml.SafeDumper):
    """A dumper that knows EXPONENT, so that it quotes texts that would be read back as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(NUMBERS[1], EXPONENT, list("-+.0123456789"))


def packaged_configs() -> Path:
    """Return the folder with the package's copies; in a checkout this is configs/ itself.

    setup.py puts the copy into the package when it is built.
    """
    inside = PACKAGE / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent / FOLDER


def find_config(path: str | Path) -> Path:
    """Return the path of a configuration file.

    A relative path below `configs/` that does not exist means the package's copy, so that every
    entry point works in any folder.
    """
    path = Path(path)
    if not path.exists() and path.parts[:1] == (FOLDER,):
        packaged = packaged_configs().joinpath(*path.parts[1:])
        return packaged if packaged.is_file() else path
    return path


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

    def origin_of(key: str) -> str:
        for name, _ in pairs:
            if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}."):
                return "the command line"
        return str(path)

    return validate(kind, tree, origin_of)


def _override(kind: type[Section], tree: dict[Any, Any], key: str, value: Any) -> None:
    """Write one dotted key into the tree of a file."""
    if isinstance(value, str):
        if fault := _check_characters(value):
            raise ConfigError(f"{key}: {fault}")
        field = dict(walk_fields(kind)).get(key)
        kinds = kinds_of(field.annotation) if field else [dict]
        is_text = all(
            kind in (str, types.NoneType) or typing.get_origin(kind) is Literal for kind in kinds
        )
        if field is None and value.strip().lower() in NULL_WORDS:
            value = None  # `Section` reads them so only for its own keys
        elif not is_text:
            value = parse_yaml(value, f"{key}: {show(value)}")
    *sections, leaf = key.split(".")
    if key.split(".")[0] == SECTION and SECTION in kind.model_fields:
        space = tree.get(SECTION, {})
        if isinstance(space, dict) and (sections or isinstance(value, dict)):
            tree[SECTION] = merge_space(space, key.split(".")[1:], value)
            return
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key} cannot be set: {section} is no section but {show(node)}")
    _merge(node, leaf, value)


def _merge(node: dict[Any, Any], name: Any, value: Any) -> None:
    if isinstance(value, dict) and isinstance(node.get(name), dict):
        for inner, inner_value in value.items():
            _merge(node[name], inner, inner_value)
    else:
        node[name] = value


def read_mapping(path: Path) -> dict[Any, Any]:
    """Return the keys and values of a YAML file.

    Raises:
        ConfigError: when the file cannot be read or is not a mapping.
    """
    if not path.is_file():
        raise ConfigError(f"No such configuration file: {path} (looked from {Path.cwd()})")
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, got {show(tree)}")
    return tree


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of one YAML document; `name` is its name in messages.

    Raises:
        ConfigError: when it is not valid YAML, or exceeds the limits above.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name} may have {MAX_CHARACTERS} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if (count := _count_values(node, 0, {})) > MAX_VALUES:
            rule = f"it may hold {MAX_VALUES} values, aliases written out"
            raise ValueError(f"{rule}, got {count:.3g}")
        return loader.construct_document(node)
    # A value that does not fit its tag raises almost any error: `!!bool foo` a KeyError.
    except (
        *(yaml.YAMLError, ValueError, LookupError),
        *(ArithmeticError, AttributeError, TypeError, RecursionError),
    ) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        first_line = str(error).partition("\n")[0]
        reason = getattr(error, "problem", None) or f"a value cannot be read ({first_line})"
        raise ConfigError(f"{name} is not valid YAML: {reason}{line}") from error


def _count_values(node: yaml.Node, depth: int, known: dict[int, int]) -> int:
    """Count the values of a node, those of a circle once, and check each of them."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)], inner, fault = 1, [], ""
    if depth > MAX_DEPTH:
        fault = f"values may be nested {MAX_DEPTH} deep"
    elif isinstance(node, yaml.ScalarNode):
        fault = _check_characters(node.value)
        if node.tag in NUMBERS and len(node.value) > MAX_NUMBER:
            fault = f"a number may have {MAX_NUMBER} characters, got {len(node.value)}"
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [show(key) for key, count in keys.items() if count > 1]
        fault = f"duplicate key {twice[0]}" if twice else ""
    if fault:
        raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
    known[id(node)] = 1 + sum(_count_values(part, depth + 1, known) for part in inner)
    return known[id(node)]


def _check_characters(text: str) -> str:
    """Return what is wrong with a text that no path, name or message may have; else ""."""
    bad = [each for each in text if unicodedata.category(each) in ("Cc", "Cs")]
    rule = "text must not hold control characters and lone surrogates"
    return f"{rule}, got U+{ord(bad[0]):04X}" if bad else ""


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


def dump_yaml(tree: Any) -> str:
    """Return text that `parse_yaml` reads back as the same value, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
