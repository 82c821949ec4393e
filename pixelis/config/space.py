"""The section `space` of tune.yaml: what it names, and what the command line changes in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.errors import ConfigError

FIELDS = ("low", "high", "log", "step", "choices")
SECTION = "space"


def flat_space(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted name -> range or choices, however the names were written.

    Raises:
        ConfigError: when a key is there twice, as `a.b` and as `a: {b}`.
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
    """Return the section with what the command line changes in it.

    A key that is given replaces that of the file; null removes one, or all below a name; `{}` for
    the whole section removes all. One field of a key, as `<key>.low`, changes that field alone.

    Args:
        section: of the file.
        path: the names of the key that is given, below the section.
        value: of it.

    Raises:
        ConfigError: when a key is there twice, or one that is to be removed is not.
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
        # With a field that nobody knows it is still the range of one key.
        if is_section and all(isinstance(each, Mapping) or each is None for each in inner):
            yield from _walk(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
