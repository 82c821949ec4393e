"""The multi-view score: what is hard to see, to understand and to do, in equal parts.

The value is the mean of three groups' means: `visual/`, `linguistic/` and `procedural/`. Facts that
a record lacks (its objects, their occlusion, a box) count as 0, never as hard.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pixelis.data.example import Example
from pixelis.data_prep.difficulty.composite import (
    Score,
    Scorer,
    example_components,
    log_scaled,
)

GROUPS = ("visual", "linguistic", "procedural")
PROCEDURAL = ("trajectory", "operations", "reasoning", "errors")
# A pixel is on an edge where its grey level changes by more than this to the next one; the grain of
# drawn backgrounds and of compression stays below.
EDGE_LEVEL = 16
# With this share of its pixels on edges an image has the largest clutter, 1.
FULL_EDGES = 0.25
# Photographs are reduced to this side, since fine grain is not clutter.
MAX_SIDE = 512
# From these counts on, the logarithmic components are 1.
FULL_OBJECTS, FULL_WORDS, FULL_CLAUSES = 30, 100, 20
_JOINTS = re.compile(
    r"[,.;:?!\n()]+|\b(?:and|or|than|that|which|who|where|when|while|if|but|because|of|between)\b",
    re.IGNORECASE,
)

Box = tuple[float, float, float, float]


def edge_density(image: Image.Image) -> float:
    """Return the share of the image's pixels on edges over FULL_EDGES, in [0, 1]."""
    grey = image.convert("L")
    grey.thumbnail((MAX_SIDE, MAX_SIDE))
    level = np.asarray(grey, dtype=np.int16)
    edges = np.zeros(level.shape, dtype=bool)
    edges[:, 1:] |= np.abs(np.diff(level, axis=1)) > EDGE_LEVEL
    edges[1:, :] |= np.abs(np.diff(level, axis=0)) > EDGE_LEVEL
    return min(1.0, float(edges.mean()) / FULL_EDGES)


def find_boxes(values: Mapping[str, Any]) -> list[Box]:
    """Return every box in a call's arguments or result: under `bbox`, `boxes` and the like.

    The name decides, since other lists of four numbers (frames, a mask) are not boxes.
    """
    boxes: list[Box] = []
    for name, value in values.items():
        if "box" not in name or not isinstance(value, list | tuple):
            continue
        for box in [value] if _are_numbers(value) else value:
            if _are_numbers(box) and len(box) == 4 and box[0] < box[2] and box[1] < box[3]:
                x1, y1, x2, y2 = map(float, box)
                boxes.append((x1, y1, x2, y2))
    return boxes


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value)


def smallness(example: Example) -> float:
    """Return 1 - the relative side of the smallest box in the calls; 0 without one."""
    if not example.images:
        return 0.0
    width, height = example.images[0].size
    boxes = [
        box
        for step in example.trajectory
        for value in (step.arguments, step.result)
        for box in find_boxes(value)
    ]
    areas = [(x2 - x1) * (y2 - y1) / (width * height) for x1, y1, x2, y2 in boxes]
    return max(0.0, 1 - math.sqrt(min(areas))) if areas else 0.0


def objects_of(example: Example) -> list[Mapping[str, Any]]:
    """Return the objects that the example's provenance names."""
    objects = example.provenance.get("objects")
    listed = objects if isinstance(objects, list | tuple) else ()
    return [each for each in listed if isinstance(each, Mapping)]


def occlusion(example: Example) -> float:
    """Return the largest share by which an object is hidden behind others, in [0, 1]."""
    shares = [each.get("occluded") for each in objects_of(example)]
    known = [float(share) for share in shares if isinstance(share, int | float)]
    return min(1.0, max([0.0, *known]))


def view_components(example: Example) -> dict[str, float]:
    """Compute the components by view, each in [0, 1]: `visual/clutter` and so on."""
    procedural = example_components(example, {})  # no task weight: it is not a view
    edges = [edge_density(image) for image in example.images]
    clauses = [piece for piece in _JOINTS.split(example.question) if piece.strip()]
    return {
        "visual/clutter": sum(edges) / len(edges) if edges else 0.0,
        "visual/objects": log_scaled(len(objects_of(example)), FULL_OBJECTS),
        "visual/smallness": smallness(example),
        "visual/occlusion": occlusion(example),
        "linguistic/words": log_scaled(len(example.question.split()), FULL_WORDS),
        "linguistic/clauses": log_scaled(len(clauses), FULL_CLAUSES),
        **{f"procedural/{name}": procedural[name] for name in PROCEDURAL},
    }


def score_views(example: Example) -> Score:
    """Score by the mean of the views' means, so that every view has the same weight."""
    components = view_components(example)
    means = []
    for group in GROUPS:
        parts = [part for name, part in components.items() if name.startswith(f"{group}/")]
        means.append(sum(parts) / len(parts))
    return Score(min(1.0, sum(means) / len(means)), components)


def multi_scorer() -> Scorer:
    """Build a scorer by the three views."""
    return lambda examples: [score_views(example) for example in examples]
