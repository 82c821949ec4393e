"""The section `space` of tune.yaml: its names, and its changes by the command line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.errors import ConfigError

FIELDS = ("low", "high", "log", "step", "choices")
SECTION = "space"


def flat_space(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ranges and choices by dotted name, from dotted or nested names.

    Raises:
        ConfigError: when a key occurs twice, as `a.b` and as `a: {b}`.
    """
    ranges: dict[str, Any] = {}
    for name, given in _walk("", section):
        if name in ranges:
            raise ConfigError(
                f"{SECTION}.{name} must be given once, got {ranges[name]} and {given}"
            )
        ranges[name] = given
    return ranges


def merge_space(section: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return the section with the changes of the command line.

    A key of the command line replaces that of the file; null removes a key, or all keys below a
    name; `{}` for the section removes all. A field of a key, such as `<key>.low`, changes only that
    field.

    Args:
        section: the file's section.
        path: the names of the command line's key, below the section.
        value: the key's value.

    Raises:
        ConfigError: when a key occurs twice, or a key to remove does not exist.
    """
    kept = {name: given for name, given in flat_space(section).items() if given is not None}
    if path and path[-1] in FIELDS:
        key = ".".join(path[:-1])
        fields = kept.get(key)
        return {**kept, key: {**(fields if isinstance(fields, Mapping) else {}), path[-1]: value}}
    if not path and value == {}:
        return {}
    for key, given in flat_space({".".join(path): value} if path else value).items():
        if given is not None:
            kept[key] = given
            continue
        gone = [name for name in kept if f"{name}.".startswith(f"{key}.")]
        if not gone:
            names = ", ".join(kept) or "none"
            raise ConfigError(f"{SECTION}.{key} must be a key of {SECTION} to be removed: {names}")
        kept = {name: given for name, given in kept.items() if name not in gone}
    return kept


def _walk(prefix: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        inner = list(value.values()) if isinstance(value, Mapping) else []
        is_section = isinstance(value, Mapping) and not (inner and set(value) & set(FIELDS))
        # With an unknown field it is still the range of one key.
        if is_section and all(isinstance(each, Mapping) or each is None for each in inner):
            yield from _walk(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
