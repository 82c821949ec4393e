"""The section `space` as text: dotted or nested names, and what the command line changes in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.errors import ConfigError

FIELDS = ("low", "high", "log", "step", "choices")
SECTION = "space"


def flat_space(section: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name -> what is said of it, however the names were written; null: nothing.

    Raises:
        ConfigError: when a key is there twice, as `a.b` and as `a: {b}`.
    """
    found: dict[str, Any] = {}
    for name, words in _leaves("", section):
        if name in found:
            raise ConfigError(f"{SECTION}.{name} must be given once, got {found[name]} and {words}")
        found[name] = words
    return found


def merge_space(section: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The section with what the command line says of it.

    A key that is given replaces that of the file; null removes one, or all below a name; `{}` for
    the whole section removes all. One word of a key, as `<key>.low`, changes that word alone.

    Args:
        section: of the file.
        path: of what is given, below the section.
        value: of it.

    Raises:
        ConfigError: when a key is there twice, or one that is to be removed is not.
    """
    kept = {name: words for name, words in flat_space(section).items() if words is not None}
    name = ".".join(path)
    if path and path[-1] in FIELDS:
        key = ".".join(path[:-1])
        words = kept.get(key)
        return {**kept, key: {**(words if isinstance(words, Mapping) else {}), path[-1]: value}}
    if not path and value == {}:
        return {}
    given = flat_space({name: value} if path else value)
    for key, words in given.items():
        if words is not None:
            kept[key] = words
            continue
        gone = [each for each in kept if f"{each}.".startswith(f"{key}.")]
        if not gone:
            listed = ", ".join(kept) or "none"
            raise ConfigError(f"{SECTION}.{key} must be a key of {SECTION} to be removed: {listed}")
        kept = {each: words for each, words in kept.items() if each not in gone}
    return kept


def _leaves(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        inner = list(value.values()) if isinstance(value, Mapping) else []
        is_section = isinstance(value, Mapping) and not (inner and set(value) & set(FIELDS))
        # With a word that nobody knows it is still what is said of one key.
        if is_section and all(isinstance(each, Mapping) or each is None for each in inner):
            yield from _leaves(f"{name}.", value)
        else:
            yield name, value
