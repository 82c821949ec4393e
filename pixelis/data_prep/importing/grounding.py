"""Fill the marks `<ref-object>` and `<bbox>` of a chat from the record's `objects` (ms-swift)."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.data_prep.importing.values import RejectedError, check_object, check_text, show

REF, BOX = "ref-object", "bbox"
MAX_COORDINATE = 1e9
# Not a pair of tags around a box.
_MARK = re.compile(rf"<({REF}|{BOX})>(?![^<]*</\1>)")


def fill_objects(texts: Sequence[str], objects: Any, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Replace the marks in texts by the names and boxes of `objects`, in order.

    Args:
        texts: the texts of the turns.
        objects: the record's field: `ref`, `bbox` and perhaps `bbox_type` and `image_id`.
        sizes: width and height of each image; boxes of the type `norm1` are shares of them.

    Raises:
        RejectedError: when marks and objects differ in number, or an object is broken.
    """
    places = Counter(name for text in texts for name in _MARK.findall(text))
    if not places:
        return list(texts)
    held = check_object(objects or {}, "objects")
    values = {REF: _read(held, "ref"), BOX: _read(held, "bbox")}
    for name, count in places.items():
        if count != len(values[name]):
            raise RejectedError(
                "object_count",
                f"the turns have {count} <{name}>, the record's objects {len(values[name])}",
            )
    left: dict[str, Iterator[str]] = {
        REF: (check_text(value, "a name of objects") for value in values[REF]),
        BOX: (_format(held, index, sizes) for index in range(len(values[BOX]))),
    }
    return [_MARK.sub(lambda match: next(left[match[1]]), text) for text in texts]


def _read(objects: Mapping[str, Any], name: str) -> list[Any]:
    value = objects.get(name) or []
    if not isinstance(value, list):
        raise RejectedError("wrong_type", f"{name} of objects must be a list, got {show(value)}")
    return value


def _format(objects: Mapping[str, Any], index: int, sizes: Sequence[tuple[int, int]]) -> str:
    """Write a box or a point in pixels, as answers write them: `[x1, y1, x2, y2]`."""
    box = objects["bbox"][index]
    kind = objects.get("bbox_type", "real")
    numbers = isinstance(box, list) and all(
        type(value) in (int, float) and abs(value) < MAX_COORDINATE for value in box
    )
    if not numbers or len(box) not in (2, 4):
        raise RejectedError("wrong_type", f"bbox must be 2 or 4 numbers, got {show(box)}")
    if kind not in ("real", "norm1"):
        raise RejectedError("wrong_type", f"bbox_type must be real or norm1, got {show(kind)}")
    scale = (1, 1)
    if kind == "norm1":
        chosen = [*_read(objects, "image_id"), *[0] * len(objects["bbox"])][index]
        if type(chosen) is not int or not 0 <= chosen < len(sizes):
            raise RejectedError(
                "wrong_type", f"image_id must be below {len(sizes)} images, got {show(chosen)}"
            )
        scale = sizes[chosen]
    return json.dumps([round(value * scale[at % 2]) for at, value in enumerate(box)])
