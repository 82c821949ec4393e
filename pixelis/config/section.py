"""The base of every configuration section, and the one-line messages about its faults."""

import difflib
import sys
import typing
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

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

from pixelis.config.kinds import (
    as_section,
    describe_kind,
    describe_limits,
    describe_rule,
    item_kind,
    split_optional,
    walk_fields,
    words_of,
)
from pixelis.errors import ConfigError

NONE_WORDS = ("", "none", "null", "~")
MAX_TEXT = 4096  # characters; the longest path
RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


class Section(BaseModel):
    """A group of keys, immutable, without type conversion and without unknown keys.

    A validator of a section raises `ConfigError` with a complete message, or `ValueError` with only
    the rule, as in "must not be empty", to which the key is added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    # Whether a message gives type and range together ("an integer >= 1") or only the broken rule.
    states_whole_rule: ClassVar[bool] = False

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert values with another form in YAML or on a command line: null and lists."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and value.lower() in NONE_WORDS and split_optional(kind)[1]:
            return None
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise PydanticCustomError("too_large", "no float can hold it")
        return tuple(value) if isinstance(value, list) and item_kind(kind) else value

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, checked like those of a file.

        Raises:
            ConfigError: with the key, the rule and the value.
        """
        return validate(type(self), {**dict(self), **changes})


SectionType = typing.TypeVar("SectionType", bound=Section)


def key(default: Any, meaning: str, **rules: Any) -> Any:
    """Return a field with its default, its meaning for `--help`, and pydantic's ge, gt, le, lt."""
    return Field(default, description=meaning, **rules)


def validate(
    kind: type[SectionType],
    tree: Any,
    origin_of: Callable[[str], str] = lambda key: "",
    prefix: str = "",
) -> SectionType:
    """Build a section from a mapping.

    Args:
        kind: the section's class.
        tree: keys and values, with nested sections.
        origin_of: returns the file or command line that set a key, for the message.
        prefix: a prefix of the keys in the message, as in "curriculum.".

    Raises:
        ConfigError: about the first fault, with the key, the rule, the value and its origin.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A misspelt key first, since it may be the cause of other faults.
        first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
        raise ConfigError(_describe_fault(first, kind, origin_of, prefix)) from error


def _describe_fault(
    fault: ErrorDetails, kind: type[Section], origin_of: Callable[[str], str], prefix: str
) -> str:
    """Return the message about one of pydantic's errors."""
    section, field, key = _locate(fault["loc"], kind)
    inner = as_section(field.annotation) if field else kind
    name = f"{prefix}{key}" if key else prefix.rstrip(".")
    origin = origin_of(key.partition("[")[0])
    ending = f" ({origin})" if origin else ""
    cause = fault.get("ctx", {}).get("error")
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        others = () if "." in key else (known for known, _ in walk_fields(kind))
        return unknown_key(name, origin, section.model_fields, others)
    if isinstance(cause, ConfigError):
        item = f"{key[: key.rindex(']') + 1]}: " if "]" in key else ""
        return f"{prefix}{item}{cause}{'' if inner else ending}"
    if cause is not None:
        return f"{name} {cause}{ending}"
    if fault["type"] == "missing":
        return f"{name} must be given, got None{ending}"
    return f"{name} must be {_broken_rule(fault, section, field)}{ending}"


def _broken_rule(fault: ErrorDetails, section: type[Section], field: FieldInfo | None) -> str:
    value, hint = fault["input"], ""
    inner = as_section(field.annotation) if field else section
    if inner is not None:
        keys = f"a section with the keys {', '.join(inner.model_fields)}"
        rule = "a mapping of settings" if section.states_whole_rule else keys
    elif section.states_whole_rule and field is not None:
        rule, hint = describe_rule(field), describe_closest(value, words_of(field.annotation))
    else:
        assert field is not None
        is_range = fault["type"] in RANGE_ERRORS
        rule = describe_limits(field) if is_range else describe_kind(field.annotation)
    return f"{rule}, got {show(value)}{hint}"


def _locate(
    location: tuple[int | str, ...], kind: type[Section]
) -> tuple[type[Section], FieldInfo | None, str]:
    """Return the section with a fault, its field if there is one, and the dotted key."""
    section, field, key = kind, None, ""
    for part in location:
        inner = as_section(field.annotation) if field else None
        if isinstance(part, int) and field is not None:  # of a list
            field, key = FieldInfo.from_annotation(item_kind(field.annotation)), f"{key}[{part}]"
        elif field is None or inner is not None:  # the last case is a union's member
            section = inner or section
            field = section.model_fields.get(str(part))
            key += f".{part}" if key else str(part)
    return section, field, key


def describe_closest(value: Any, choices: Iterable[str]) -> str:
    """Return a hint at the closest choice; empty if none is close."""
    near = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def unknown_key(key: str, origin: str, valid: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return the message about an unknown key.

    Args:
        key: the dotted key.
        origin: the file or command line that set it; empty: it is not mentioned.
        valid: the valid names in the same section.
        others: keys of other sections that may have been meant.
    """
    name, valid = key.rpartition(".")[2], list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    near = near or [other for other in others if other.rpartition(".")[2] == name][:1]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    where = f" in {origin}" if origin else ""
    return f"Unknown key {show(key)}{where}.{hint} Valid keys here: {', '.join(valid)}"


def show(value: Any) -> str:
    """Return a value as text for a message, of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_text(text: Any, *, least: int = 1) -> Any:
    """Refuse a text with characters that no path, name or message may have; ignore other types."""
    if not isinstance(text, str):
        return text
    if len(text) < least:
        raise ValueError("must not be empty")
    if len(text) > MAX_TEXT:
        raise ValueError(f"may have {MAX_TEXT} characters, got {len(text)}")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            rule = "must not hold control characters and lone surrogates"
            raise ValueError(f"{rule}, got U+{ord(character):04X}")
    return text


def _check_open_section(section: Any, info: ValidationInfo) -> Any:
    try:
        return _to_plain(str(info.field_name), section) if isinstance(section, Mapping) else section
    except RecursionError as error:  # YAML's &anchors can build circles
        raise ValueError("must not contain itself") from error


def _to_plain(key: str, value: Any) -> Any:
    """Return a copy of a value, made only of JSON's types."""
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
        _check_text(value, least=0)
    except ValueError as error:
        raise ConfigError(f"{key} {error}") from error


Text = Annotated[str, BeforeValidator(_check_text)]
# Any mapping of plain values; the code that uses it checks its rules.
OpenSection = Annotated[dict[str, Any], BeforeValidator(_check_open_section)]
