"""Validation of values by the part of JSON Schema that operations' parameters use."""

from collections.abc import Mapping
from typing import Any


def fits_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether parsed JSON fits a schema (JSON Schema 2020-12, validation).

    Supported are `type` (integer, array, object), `minimum`, `maximum`, `items`, `minItems`,
    `maxItems`, `properties`, `required`, and `additionalProperties` (false). Unlike in JSON Schema,
    `3.0` is no integer, since operations refuse it.
    """
    kind = schema["type"]
    if kind == "integer":
        low, high = schema.get("minimum"), schema.get("maximum")
        return (
            type(value) is int and (low is None or value >= low) and (high is None or value <= high)
        )
    if kind == "array":
        return (
            isinstance(value, list | tuple)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(fits_schema(item, schema["items"]) for item in value)
        )
    assert kind == "object", f"no parameter is of type {kind!r}"
    properties = schema["properties"]
    return (
        isinstance(value, Mapping)
        and all(name in value for name in schema.get("required", ()))
        and (schema.get("additionalProperties", True) or value.keys() <= properties.keys())
        and all(fits_schema(value[name], properties[name]) for name in value if name in properties)
    )
