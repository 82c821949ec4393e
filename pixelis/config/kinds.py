"""Describe the type and the range of a configuration's field."""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

KIND_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def walk_fields(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key of a section with its field, inner sections opened."""
    for name, field in kind.model_fields.items():
        if inner := as_section(field.annotation):
            yield from walk_fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def as_section(kind: Any) -> type[BaseModel] | None:
    """Return a type if it is a section class, else None."""
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def split_optional(kind: Any) -> tuple[Any, bool]:
    """Split an optional type into the type itself and whether null is allowed.

    For a union of a number and words, the type is the number; `words_of` returns the words.
    """
    members = _members(kind)
    kinds = [member for member in members if member is not types.NoneType]
    numbers = [member for member in kinds if typing.get_origin(member) is not Literal]
    inner = (numbers or kinds)[0]
    is_annotated = typing.get_origin(inner) is Annotated
    return typing.get_args(inner)[0] if is_annotated else inner, types.NoneType in members


def words_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a type accepts: its choices, or `auto` in addition to a number."""
    choices = [member for member in _members(kind) if typing.get_origin(member) is Literal]
    return tuple(str(word) for choice in choices for word in typing.get_args(choice))


def item_kind(kind: Any) -> Any:
    """Return the type of a list's (tuple's) items; None for another type."""
    inner, _ = split_optional(kind)
    return typing.get_args(inner)[0] if typing.get_origin(inner) is tuple else None


def describe_kind(kind: Any) -> str:
    """Describe a type, as in "an integer or auto"."""
    inner, _ = split_optional(kind)
    if item_kind(kind) is not None:
        return "a list, as in [a, b]"
    if typing.get_origin(inner) is dict:
        return "a section"
    if inner not in KIND_NAMES:
        return f"one of {', '.join(words_of(kind))}"
    return " or ".join([KIND_NAMES[inner], *words_of(kind)])


def describe_limits(field: FieldInfo) -> str:
    """Describe the range of a field or of its items, as in "in (0, 1]"; empty without a range."""
    item = item_kind(field.annotation)
    metadata = list(field.metadata)
    for member in _members(field.annotation) if item is None else (item,):
        metadata += FieldInfo.from_annotation(member).metadata
    limits = {
        sign: getattr(rule, sign) for rule in metadata for sign in SIGNS if hasattr(rule, sign)
    }
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in limits else '('}{low}, {high}{']' if 'le' in limits else ')'}"
    return "".join(f"{SIGNS[sign]} {limit}" for sign, limit in limits.items())


def describe_rule(field: FieldInfo) -> str:
    """Describe the type and the range of a field, as in "null or an integer >= 1"."""
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
