"""The base of every configuration section, and the one-line messages about its faults."""

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pixelis.errors import ConfigError

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
NULL_WORDS = ("", "none", "null", "~")
Item = typing.TypeVar("Item")
# A list in YAML. Strict is about the list itself: its items are not converted.
Many = Annotated[tuple[Item, ...], Strict(False)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]  # at most the longest path
# Any mapping of plain values; the code that uses it checks its rules.
OpenSection = dict[str, JsonValue]
# Rules that read better in YAML's words than in pydantic's.
RULES = {
    "model_type": "must be a section of keys and values",
    "dict_type": "must be a section of keys and values",
    "tuple_type": "must be a list, as in [a, b]",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} items",
    "missing": "must be given",
    "recursion_loop": "must not contain itself",
    "invalid-json-value": "must be a number, text, true, false, null, a list or a section",
}


class Section(BaseModel):
    """A group of keys, immutable, without type conversion and without unknown keys.

    A validator of a section raises `ConfigError` with a complete message, or `ValueError` with only
    the rule, as in "must not be empty", to which the key is added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read_null(cls, value: Any, info: ValidationInfo) -> Any:
        is_null = isinstance(value, str) and value.lower() in NULL_WORDS
        kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
        return None if is_null and types.NoneType in kinds else value

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, checked like those of a file.

        Raises:
            ConfigError: with the key, the rule and the value.
        """
        return validate(type(self), {**dict(self), **changes})


SectionType = typing.TypeVar("SectionType", bound=Section)


def key(default: Any, meaning: str, *, reason: str = "", **rules: Any) -> Any:
    """Return a field of a section.

    Args:
        default: its default.
        meaning: its meaning for `--help`.
        reason: the reason of its range, for the message about a value outside of it.
        **rules: pydantic's ge, gt, le, lt.
    """
    return Field(default, description=meaning, json_schema_extra={"reason": reason}, **rules)


def limits_of(field: FieldInfo) -> str:
    """Describe the range of a field or of a list's items, as in "in [0, 1)" or ">= 1"."""
    rules = [*field.metadata, *_inner_rules(field.annotation)]
    limits = {sign: getattr(rule, sign) for rule in rules for sign in SIGNS if hasattr(rule, sign)}
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in limits else '('}{low}, {high}{']' if 'le' in limits else ')'}"
    return "".join(f"{SIGNS[sign]} {limit}" for sign, limit in limits.items())


def _inner_rules(annotation: Any) -> Iterator[Any]:
    for part in typing.get_args(annotation):
        yield from part.metadata if isinstance(part, FieldInfo) else _inner_rules(part)


def kinds_of(annotation: Any) -> list[Any]:
    """Return the types of a union, or the type alone."""
    if typing.get_origin(annotation) is Annotated:
        return kinds_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [kind for member in typing.get_args(annotation) for kind in kinds_of(member)]
    return [annotation]


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section class of a key, or of a list's or mapping's items; None for others."""
    for kind in kinds_of(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
        if typing.get_origin(kind) in (tuple, dict):
            inner = section_of(typing.get_args(kind)[typing.get_origin(kind) is dict])
            if inner is not None:
                return inner
    return None


def walk_fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key of a section with its field, inner sections opened."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from walk_fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


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
        raise ConfigError(_describe(error, kind, tree, origin_of, prefix)) from error


def _describe(
    error: ValidationError,
    kind: type[Section],
    tree: Any,
    origin_of: Callable[[str], str],
    prefix: str,
) -> str:
    faults = error.errors(include_url=False)
    # A misspelt key first, since it may be the cause of other faults.
    fault = min(faults, key=lambda each: each["type"] not in ("extra_forbidden", "invalid_key"))
    key, section, field = _locate(fault["loc"], kind, tree)
    name, origin = f"{prefix}{key}", origin_of(key.partition("[")[0])
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        others = () if "." in key else (known for known, _ in walk_fields(kind))
        return unknown_key(name, origin, section.model_fields, others)
    ending = f" ({origin})" if origin else ""
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return f"{prefix}{cause}"
    if cause is not None:
        return f"{name} {cause}{ending}"
    # A union of types has a fault for each of them.
    same = [each for each in faults if _locate(each["loc"], kind, tree)[0] == key]
    rules = [_rule(each, field) for each in same]
    rule = " or ".join([rules[0], *(re.sub("^must be (one of )?", "", each) for each in rules[1:])])
    return f"{name.rstrip('.')} {rule}, got {show(fault['input'])}{_reason(fault, field)}{ending}"


def _rule(fault: ErrorDetails, field: FieldInfo | None) -> str:
    context = fault.get("ctx", {})
    if fault["type"] == "literal_error":
        return f"must be one of {', '.join(_choices(fault))}"
    if SIGNS.keys() & context.keys():  # of items of an open mapping, such as a mix: one limit
        one = "".join(f"{SIGNS[sign]} {context[sign]:.10g}" for sign in SIGNS.keys() & context)
        return f"must be {(field and limits_of(field)) or one}"
    if fault["type"] in RULES:
        return RULES[fault["type"]].format(**context)
    return re.sub("^(Input|String) should", "must", fault["msg"])


def _choices(fault: ErrorDetails) -> list[str]:
    return re.findall("'(.*?)'", fault["ctx"]["expected"])


def _reason(fault: ErrorDetails, field: FieldInfo | None) -> str:
    if fault["type"] == "literal_error":
        return suggest(fault["input"], _choices(fault))
    extra = field.json_schema_extra if field else None
    is_range = SIGNS.keys() & fault.get("ctx", {}).keys()
    reason = extra.get("reason") if is_range and isinstance(extra, dict) else ""
    return f" ({reason})" if reason else ""


def suggest(value: Any, choices: Iterable[str]) -> str:
    """Return the choice that is most like a value, as in " (did you mean 'staged'?)", or ""."""
    near = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _locate(
    location: tuple[int | str, ...], kind: type[Section], value: Any
) -> tuple[str, type[Section], FieldInfo | None]:
    """Return the dotted key of a fault, the section that it is in, and the key's field there."""
    key, section, inner, field = "", kind, kind, None
    for part in location:
        try:
            value = value[part]
        except (LookupError, TypeError):
            if part not in inner.model_fields:
                continue  # not a key, but pydantic's name of a type in a union
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
        if isinstance(part, str):
            section, field = inner, inner.model_fields.get(part)
            inner = (section_of(field.annotation) if field else None) or inner
    return key, section, field


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
