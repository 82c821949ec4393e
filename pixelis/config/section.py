"""The base of every configuration section, and the one-line messages about what is wrong in one."""

import difflib
import sys
import types
import typing
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from pixelis.errors import ConfigError

NONE_WORDS = ("", "none", "null", "~")
MAX_TEXT = 4096  # characters; the longest path
KIND_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}
RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


class Section(BaseModel):
    """A group of keys: frozen, without type conversion, without unknown keys.

    A validator of a section raises `ConfigError` with a whole message, or `ValueError` with the
    rule alone, as in "must not be empty": the key is put before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    # Whether a message states type and range together ("an integer >= 1"), or what was broken.
    states_whole_rule: ClassVar[bool] = False

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        """Read what YAML and a command line write in another way: null as a word, and lists."""
        assert info.field_name is not None
        kind, is_optional = split_optional(cls.model_fields[info.field_name].annotation)
        if is_optional and isinstance(value, str) and value.lower() in NONE_WORDS:
            return None
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise PydanticCustomError("too_large", "no float can hold it")
        return tuple(value) if isinstance(value, list) and is_tuple(kind) else value

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, checked as those of a file are.

        Raises:
            ConfigError: naming the key, the rule and the value.
        """
        return validate(type(self), {**dict(self), **changes})


SectionType = typing.TypeVar("SectionType", bound=Section)


def validate(
    kind: type[SectionType],
    tree: Any,
    origins: "Origins | None" = None,
    prefix: str = "",
) -> SectionType:
    """Build a section from a mapping.

    Args:
        kind: the section's class.
        tree: key -> value, sections nested.
        origins: who set a key, for the message; None: nobody is named.
        prefix: of the keys in the message, as in "curriculum.".

    Raises:
        ConfigError: about the first fault: key, rule, value and who set it.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A misspelt key first: what else is wrong may come of it.
        first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
        raise ConfigError(_describe_fault(first, kind, origins, prefix)) from error


class Origins:
    """Who set a key: a file or the command line."""

    def __init__(self, file: object, overridden: Iterable[str] = ()) -> None:
        """Take the file's name and the dotted keys that the command line gave."""
        self._file, self._overridden = file, list(overridden)

    def of(self, key: str) -> str:
        """Return the file, or "the command line"."""
        for given in self._overridden:
            if f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}."):
                return "the command line"
        return str(self._file)


def _describe_fault(
    fault: ErrorDetails, kind: type[Section], origins: Origins | None, prefix: str
) -> str:
    """Return the line about one of pydantic's errors."""
    section: type[Section] = kind
    field: FieldInfo | None = None
    parts: list[str] = []
    for part in fault["loc"]:
        if isinstance(part, int):  # of a list
            assert field is not None
            parts[-1] += f"[{part}]"
            field = FieldInfo.from_annotation(
                typing.get_args(split_optional(field.annotation)[0])[0]
            )
        elif field is None or as_section(field.annotation):
            section = as_section(field.annotation) or section if field else section
            field = section.model_fields.get(part)
            parts.append(part)
    key = ".".join(parts)
    name, origin = (
        f"{prefix}{key}".rstrip("."),
        origins.of(key.partition("[")[0]) if origins else "",
    )
    ending = f" ({origin})" if origin else ""
    broken = fault.get("ctx", {}).get("error")
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        everywhere = () if "." in key else (known for known, _ in walk_fields(kind))
        return unknown_key(name, origin, section.model_fields, everywhere)
    if isinstance(broken, ConfigError):
        is_of_section = field is None or as_section(field.annotation)
        lead = f"{prefix}{key[: key.rindex(']') + 1]}: " if "]" in key else prefix
        return f"{lead}{broken}{'' if is_of_section else ending}"
    if broken is not None:
        return f"{name} {broken}{ending}"
    if fault["type"] == "missing":
        return f"{name} must be given, got None{ending}"
    value = show(fault["input"])
    if field is None or as_section(field.annotation):
        inner_section = as_section(field.annotation) if field else kind
        assert inner_section is not None
        keys = f"a section with the keys {', '.join(inner_section.model_fields)}"
        rule = "a mapping of settings" if section.states_whole_rule else keys
        return f"{name or 'the configuration'} must be {rule}, got {value}{ending}"
    if section.states_whole_rule:
        hint = describe_closest(fault["input"], words_of(field.annotation))
        return f"{name} must be {describe_rule(field)}, got {value}{hint}{ending}"
    is_range = fault["type"] in RANGE_ERRORS
    rule = describe_limits(field) if is_range else describe_kind(field.annotation)
    return f"{name} must be {rule}, got {value}{ending}"


def describe_closest(value: Any, choices: Iterable[str]) -> str:
    """Return a hint at the choice that was meant; empty where none is close."""
    near = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def unknown_key(key: str, origin: str, valid: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return the message about an unknown key.

    Args:
        key: the dotted key.
        origin: who set it; empty: nobody is named.
        valid: the names that are known beside it.
        others: full keys elsewhere that may have been meant.
    """
    name, valid = key.rpartition(".")[2], list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    near = near or [other for other in others if other.rpartition(".")[2] == name][:1]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    where = f" in {origin}" if origin else ""
    return f"Unknown key {show(key)}{where}.{hint} Valid keys here: {', '.join(valid)}"


def show(value: Any) -> str:
    """Return a value as a message quotes it, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# What a field holds, in words


def walk_fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key of a section with its field, inner sections opened."""
    for name, field in kind.model_fields.items():
        if inner := as_section(field.annotation):
            yield from walk_fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def as_section(kind: Any) -> type[Section] | None:
    """Return the section that a type is, None where it is none."""
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def split_optional(kind: Any) -> tuple[Any, bool]:
    """Split an optional type into the type itself and whether null is allowed."""
    members = _members(kind)
    kinds = [member for member in members if member is not types.NoneType]
    # Of a number or a word, the number: the words are those of `words_of`.
    numbers = [member for member in kinds if typing.get_origin(member) is not Literal]
    inner = (numbers or kinds)[0]
    is_annotated = typing.get_origin(inner) is Annotated
    return typing.get_args(inner)[0] if is_annotated else inner, types.NoneType in members


def words_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a type takes: its choices, or `auto` beside a number."""
    choices = [member for member in _members(kind) if typing.get_origin(member) is Literal]
    return tuple(str(word) for choice in choices for word in typing.get_args(choice))


def is_tuple(kind: Any) -> bool:
    """Return whether a type is a list of values, which is kept as a tuple."""
    return typing.get_origin(kind) is tuple


def describe_kind(kind: Any) -> str:
    """Return a type in words, as in "an integer or auto"."""
    inner, _ = split_optional(kind)
    if is_tuple(inner):
        return "a list, as in [a, b]"
    if typing.get_origin(inner) is dict:
        return "a section"
    words = words_of(kind)
    if inner not in KIND_NAMES:
        return f"one of {', '.join(words)}"
    return " or ".join([KIND_NAMES[inner], *words])


def describe_limits(field: FieldInfo) -> str:
    """Return the range of a field, as in ">= 1" or "in (0, 1]"; empty where it has none."""
    kind, _ = split_optional(field.annotation)
    inner = typing.get_args(kind) if is_tuple(kind) else _members(field.annotation)
    metadata = [*field.metadata]
    for member in inner:
        metadata += FieldInfo.from_annotation(member).metadata
    limits = {
        name: getattr(one, name)
        for one in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(one, name, None) is not None
    }
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in limits else '('}{low}, {high}{']' if 'le' in limits else ')'}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return "".join(f"{signs[name]} {limit}" for name, limit in limits.items())


def describe_rule(field: FieldInfo) -> str:
    """Return type and range of a field together, as in "null or an integer >= 1"."""
    kind, is_optional = split_optional(field.annotation)
    limits = describe_limits(field)
    if kind is float and limits:
        rule = limits if limits.startswith("in ") else f"a number {limits}"
    else:
        rule = f"{describe_kind(field.annotation)} {limits}".rstrip()
    return f"null or {rule}" if is_optional else rule


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type alone."""
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return typing.get_args(kind) if is_union else (kind,)


# Fields


def key(default: Any, meaning: str, **rules: Any) -> Any:
    """Return a field with its default, its meaning for `--help`, and pydantic's ge, gt, le, lt."""
    return Field(default, description=meaning, **rules)


def check_text(text: Any) -> Any:
    """Refuse a text that no path, name or message can hold; another value is left to its type.

    Raises:
        ValueError: with the rule.
    """
    if not isinstance(text, str):
        return text
    if len(text) > MAX_TEXT:
        raise ValueError(f"may have {MAX_TEXT} characters, got {len(text)}")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            rule = "must not hold control characters and lone surrogates"
            raise ValueError(f"{rule}, got U+{ord(character):04X}")
    return text


def _check_some_text(text: Any) -> Any:
    if text == "":
        raise ValueError("must not be empty")
    return check_text(text)


def _check_open_section(section: Any, info: ValidationInfo) -> Any:
    try:
        return _to_plain(str(info.field_name), section) if isinstance(section, Mapping) else section
    except RecursionError as error:  # YAML's &anchors allow it
        raise ValueError("must not contain itself") from error


def _to_plain(key: str, value: Any) -> Any:
    """Return a copy of a value that is made of nothing that JSON does not know."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"{key} must have text as keys, got {show(name)}")
            _check_text_of(f"a key of {key}", name)
        return {name: _to_plain(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(f"{key}[{index}]", inner) for index, inner in enumerate(value)]
    is_plain = value is None or isinstance(value, bool | int | float | str)
    is_finite = not isinstance(value, int | float) or abs(value) <= sys.float_info.max
    if not is_plain or not is_finite:
        rule = "a finite number, text, true, false, null, a list or a section"
        raise ConfigError(f"{key} must be {rule}, got {show(value)}")
    _check_text_of(key, value)
    return value


def _check_text_of(key: str, value: Any) -> None:
    try:
        check_text(value)
    except ValueError as error:
        raise ConfigError(f"{key} {error}") from error


Text = Annotated[str, BeforeValidator(_check_some_text)]
# Any mapping of plain values: whoever uses it knows its rules.
OpenSection = Annotated[dict[str, Any], BeforeValidator(_check_open_section)]
