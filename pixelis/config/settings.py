"""The strict way from a YAML file and `section.key value` to frozen dataclasses, and back.

Knows no key of the project: `pixelis.config.schema` states them, as dataclasses whose fields
are made by `setting`. A field is a bool, int, float or str, an optional one of these, one of
these or a word (`int | Literal["auto"]`), a tuple of these, another such dataclass, or an open
section: a dict whose rules somebody else knows.
"""

import copy
import dataclasses
import difflib
import hashlib
import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pixelis.config.strict_yaml import check_text, dump_yaml, parse_yaml, read_mapping, show
from pixelis.errors import ConfigError

ConfigType = TypeVar("ConfigType")
Scalar = bool | int | float | str | None

NONE_WORDS = ("", "none", "null", "~")
KIND_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


class Setting(NamedTuple):
    """One key as a user sees it."""

    key: str
    kind: Any
    default: Any
    rule: str
    meaning: str


class Origin(NamedTuple):
    """Who set a key, for messages."""

    file: Path | None
    overridden: Sequence[str]

    def of(self, key: str) -> str:
        """Name the file or the command line."""
        for given in self.overridden:
            if f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}."):
                return "the command line"
        return str(self.file)


def setting(default: Any, meaning: str, **rules: Any) -> Any:
    """A dataclass field with its meaning and rules: at_least, at_most, above, below, choices."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "rules": rules})


def open_section(meaning: str, merge: Any = None) -> Any:
    """A field of any mapping of plain values; `merge(old, path, value)` puts an override in."""
    metadata = {"meaning": meaning, "rules": {}, "merge": merge}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def describe(config_class: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Yield every key of a configuration class, sections opened."""
    for name, (kind, field) in _members(config_class).items():
        if dataclasses.is_dataclass(kind):
            yield from describe(typing.cast(type[Any], kind), f"{prefix}{name}.")
        else:
            default = {} if field.default is dataclasses.MISSING else field.default
            rule = _rule(field.metadata["rules"])
            yield Setting(prefix + name, kind, default, rule, field.metadata["meaning"])


def load_config(
    config_class: type[ConfigType],
    path: Path | None,
    overrides: Sequence[tuple[str, str]] | Mapping[str, Any] = (),
) -> ConfigType:
    """Build a configuration from its defaults, a file over them, and dotted overrides over both.

    A text override is read by the type of its key, as from a command line; a mapping is merged.
    """
    pairs = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    tree = {} if path is None else read_mapping(path)
    for key, value in pairs:
        _override(config_class, tree, key, value)
    config: ConfigType = _build(config_class, tree, "", Origin(path, [key for key, _ in pairs]))
    return config


def flatten(config: Any) -> dict[str, Scalar]:
    """Dotted keys and their values; a list is one JSON text."""
    return dict(_flat_items("", dataclasses.asdict(config)))


def to_yaml(config: Any) -> str:
    """The whole configuration as a file that `load_config` reads back unchanged."""
    return dump_yaml(dataclasses.asdict(config))


def digest(config: Any, exclude: Iterable[str] = ()) -> str:
    """The sha256 of the configuration without the keys and sections in `exclude`."""
    left_out = tuple(exclude)
    kept = {
        key: value
        for key, value in flatten(config).items()
        if not any(f"{key}.".startswith(f"{name}.") for name in left_out)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def unknown_key(key: str, origin: str, valid: Iterable[str], others: Iterable[str] = ()) -> str:
    """The message for a key that nobody knows; `others` are full keys that may have been meant."""
    name, valid = key.rpartition(".")[2], list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    near = near or [other for other in others if other.rpartition(".")[2] == name][:1]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown key {show(key)} in {origin}.{hint} Valid keys here: {', '.join(valid)}"


def without_none(kind: Any) -> tuple[Any, bool]:
    """Split an optional type into the type itself and whether null is allowed."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        members = typing.get_args(kind)
        (inner,) = (
            member
            for member in members
            if member is not types.NoneType and typing.get_origin(member) is not typing.Literal
        )
        return inner, types.NoneType in members
    return kind, False


def words_of(kind: Any) -> tuple[str, ...]:
    """The words that a field takes beside its type, such as `auto` for a number."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return ()
    literals = [m for m in typing.get_args(kind) if typing.get_origin(m) is typing.Literal]
    return tuple(str(word) for literal in literals for word in typing.get_args(literal))


def _members(config_class: type[Any]) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    hints = typing.get_type_hints(config_class)
    return {field.name: (hints[field.name], field) for field in dataclasses.fields(config_class)}


def _flat_items(key: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat_items(f"{key}.{name}" if key else name, inner)
    else:
        yield key, json.dumps(value) if isinstance(value, list | tuple) else value


def _override(config_class: type[Any], tree: dict[Any, Any], key: str, value: Any) -> None:
    """Write one dotted key into the tree of a file."""
    kind = _kind_at(config_class, key)
    value = _parse_text(key, value, kind) if isinstance(value, str) else copy.deepcopy(value)
    *parents, leaf = key.split(".")
    (first, *below), members = key.split("."), _members(config_class)
    merge = members[first][1].metadata.get("merge") if first in members else None
    if merge and isinstance(tree.get(first, {}), dict) and (below or isinstance(value, dict)):
        tree[first] = merge(tree.get(first, {}), below, value)
        return
    node = tree
    for depth, part in enumerate(parents):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            section = ".".join(parents[: depth + 1])
            raise ConfigError(f"{key} cannot be set: {section} is no section but {show(node)}")
    _merge(node, leaf, value)


def _kind_at(config_class: type[Any], key: str) -> Any:
    """The type of a dotted key: Any inside an open section, None where nothing has that name."""
    kind: Any = config_class
    for part in key.split("."):
        if kind is Any or typing.get_origin(kind) is dict:
            return Any
        if not dataclasses.is_dataclass(kind):
            return None
        kind, _ = _members(typing.cast(type[Any], kind)).get(part, (None, None))
    return kind


def _parse_text(key: str, text: str, kind: Any) -> Any:
    if without_none(kind)[0] in (str, None):
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


def _build(config_class: type[Any], tree: Any, prefix: str, origin: Origin) -> Any:
    members = _members(config_class)
    if not isinstance(tree, dict):
        section, rule = prefix.rstrip("."), f"a section with the keys {', '.join(members)}"
        raise ConfigError(f"{section} must be {rule}, got {show(tree)} ({origin.of(section)})")
    values = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in members:
            others = () if prefix else (known.key for known in describe(config_class))
            raise ConfigError(unknown_key(key, origin.of(key), members, others))
        kind, field = members[name]
        if dataclasses.is_dataclass(kind):
            values[name] = _build(typing.cast(type[Any], kind), value, f"{key}.", origin)
        else:
            values[name] = _convert(key, value, kind, field.metadata["rules"], origin.of(key))
    return config_class(**values)


def _convert(key: str, value: Any, kind: Any, rules: Mapping[str, Any], origin: str) -> Any:
    """Check a value and give it the form in which its field keeps it."""
    words = words_of(kind)
    if isinstance(value, str) and value in words:
        return value
    kind, optional = without_none(kind)
    if optional and (value is None or isinstance(value, str) and value.lower() in NONE_WORDS):
        return None
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must be a section, got {show(value)} ({origin})")
        try:
            return _plain(key, value, origin)
        except RecursionError as error:  # YAML's &anchors allow it
            raise ConfigError(f"{key} must not contain itself ({origin})") from error
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key} must be a list, as in [a, b], got {show(value)} ({origin})")
        item = typing.get_args(kind)[0]
        return tuple(_convert(f"{key}[{i}]", v, item, rules, origin) for i, v in enumerate(value))
    right = isinstance(value, (int, float) if kind is float else kind)
    if not right or (isinstance(value, bool) and kind is not bool) or not _finite(value):
        named = " or ".join([KIND_NAMES[kind], *words])
        raise ConfigError(f"{key} must be {named}, got {show(value)} ({origin})")
    if value == "":
        raise ConfigError(f"{key} must not be empty ({origin})")
    if isinstance(value, str):
        check_text(key, value, origin)
    if not _holds(value, rules):
        raise ConfigError(f"{key} must be {_rule(rules)}, got {show(value)} ({origin})")
    return kind(value)


def _plain(key: str, value: Any, origin: str) -> Any:
    """The value of an open section, made of nothing that JSON does not know."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"{key} must have text as keys, got {show(name)} ({origin})")
            check_text(f"a key of {key}", name, origin)
        return {name: _plain(f"{key}.{name}", inner, origin) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{key}[{i}]", inner, origin) for i, inner in enumerate(value)]
    if value is not None and not (isinstance(value, bool | int | float | str) and _finite(value)):
        rule = "a finite number, text, true, false, null, a list or a section"
        raise ConfigError(f"{key} must be {rule}, got {show(value)} ({origin})")
    if isinstance(value, str):
        check_text(key, value, origin)
    return value


def _finite(value: Any) -> bool:
    # Also false for an integer that no float can hold; nan compares false.
    return not isinstance(value, int | float) or abs(value) <= sys.float_info.max


def _holds(value: Any, rules: Mapping[str, Any]) -> bool:
    return (
        ("choices" not in rules or value in rules["choices"])
        and ("at_least" not in rules or value >= rules["at_least"])
        and ("at_most" not in rules or value <= rules["at_most"])
        and ("above" not in rules or value > rules["above"])
        and ("below" not in rules or value < rules["below"])
    )


def _rule(rules: Mapping[str, Any]) -> str:
    """The rules of a field in words."""
    if "choices" in rules:
        return f"one of {', '.join(rules['choices'])}"
    lower = [name for name in ("at_least", "above") if name in rules]
    upper = [name for name in ("at_most", "below") if name in rules]
    if lower and upper:
        left, right = "[" if "at_least" in rules else "(", "]" if "at_most" in rules else ")"
        return f"in {left}{rules[lower[0]]}, {rules[upper[0]]}{right}"
    signs = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}
    return "".join(f"{signs[name]} {rules[name]}" for name in lower + upper)
