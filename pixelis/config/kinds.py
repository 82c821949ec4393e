"""What the field of a configuration holds: its type and its range, in words."""

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
    """Return the section that a type is, None where it is none."""
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def split_optional(kind: Any) -> tuple[Any, bool]:
    """Split an optional type into the type itself and whether null is allowed.

    Of a number or a word, the type is the number: the words are those of `words_of`.
    """
    members = _members(kind)
    kinds = [member for member in members if member is not types.NoneType]
    numbers = [member for member in kinds if typing.get_origin(member) is not Literal]
    inner = (numbers or kinds)[0]
    is_annotated = typing.get_origin(inner) is Annotated
    return typing.get_args(inner)[0] if is_annotated else inner, types.NoneType in members


def words_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a type takes: its choices, or `auto` beside a number."""
    choices = [member for member in _members(kind) if typing.get_origin(member) is Literal]
    return tuple(str(word) for choice in choices for word in typing.get_args(choice))


def item_kind(kind: Any) -> Any:
    """Return the type of the items of a list, which is kept as a tuple; None for another type."""
    inner, _ = split_optional(kind)
    return typing.get_args(inner)[0] if typing.get_origin(inner) is tuple else None


def describe_kind(kind: Any) -> str:
    """Return a type in words, as in "an integer or auto"."""
    inner, _ = split_optional(kind)
    if item_kind(kind) is not None:
        return "a list, as in [a, b]"
    if typing.get_origin(inner) is dict:
        return "a section"
    if inner not in KIND_NAMES:
        return f"one of {', '.join(words_of(kind))}"
    return " or ".join([KIND_NAMES[inner], *words_of(kind)])


def describe_limits(field: FieldInfo) -> str:
    """Return the range of a field or of its items, as in "in (0, 1]"; empty where it has none."""
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
