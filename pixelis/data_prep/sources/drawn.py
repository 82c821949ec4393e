"""The source `scenes`: drawn images, composed to have the objects that a task needs."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from pixelis.data_prep.annotated_image import (
    AnnotatedImage,
    Box,
    Cell,
    Instance,
    Location,
    Occlusion,
)
from pixelis.data_prep.scenes import (
    CELL,
    CELLS,
    CLUTTER_CHOICES,
    RADII,
    SIDE,
    Item,
    Scene,
    build_scene,
    draw_item,
    draw_items,
    drawing_order,
    overlapping_pair,
    random_digit,
    random_item,
    random_text,
    render,
)
from pixelis.operations.pixels import PALETTE, SHAPES

DIRECTIONS: tuple[Cell, ...] = ((0, 1), (0, -1), (1, 0), (-1, 0))
MAX_COUNTED = 5
FRAMES = (2, 3, 3, 4)
Pair = tuple[Item, Item]


@lru_cache(maxsize=len(CELLS))
def location_of(cell: Cell) -> Location:
    """Return the location of a cell."""
    item = Item(cell)
    x1, y1, x2, y2 = item.box
    return Location(item.place, (x1, y1, x2, y2), (item.point["x"], item.point["y"]))


@lru_cache(maxsize=len(SHAPES) * len(RADII))
def full_area(shape: str, size: str) -> int:
    """Return the number of pixels of an uncovered shape."""
    canvas = Image.new("L", (SIDE, SIDE), 0)
    draw_item(ImageDraw.Draw(canvas), Item((1, 1), "red", shape, size), 1)
    return int(np.asarray(canvas).sum())


def _instances(scene: Scene, path: Callable[[Item], tuple[Location, ...]]) -> list[Instance]:
    """Return the instances of a scene; their visible pixels are counted on a map of items."""
    item_map = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(item_map)
    for item in drawing_order(scene):
        if not item.text:
            draw_item(draw, item, scene.items.index(item) + 1)
    labels = np.asarray(item_map)
    areas = np.bincount(labels.ravel(), minlength=len(scene.items) + 1)
    extents = ndimage.find_objects(labels, max_label=len(scene.items))
    instances = []
    for number, item in enumerate(scene.items, 1):
        location = location_of(item.cell)
        row, col = item.cell
        extent: Box = location.box
        area = CELL * CELL
        if not item.text:
            rows, columns = extents[number - 1]
            extent = (columns.start, rows.start, columns.stop, rows.stop)
            area = int(areas[number])
        instances.append(
            Instance(
                name=item.name,
                kind=item.shape or item.name,
                location=location,
                extent=extent,
                area=area,
                position=(col + 1, row + 1),
                colour=item.colour,
                cell=item.cell,
                small=not item.text and item.size == "small",
                text=item.text,
                occluded=0.0 if item.text else 1 - area / full_area(item.shape, item.size),
                path=path(item),
            )
        )
    return instances


def to_picture(
    scene: Scene, pairs: Sequence[Pair] = (), later: Sequence[Scene] = (), moves: int = 0
) -> AnnotatedImage:
    """Return a scene as an annotated image.

    Args:
        scene: the first frame.
        pairs: pairs of items; the first was drawn over the edge of the second.
        later: the other frames; an item keeps its name and may change its cell.
        moves: the number of items that change their cell.
    """

    def path(item: Item) -> tuple[Location, ...]:
        cells = [{i.name: i.cell for i in frame.items}[item.name] for frame in later]
        return tuple(location_of(cell) for cell in (item.cell, *cells)) if later else ()

    instances = _instances(scene, path)
    by_cell = {instance.cell: instance for instance in instances}
    taken = {item.cell for item in scene.items}
    frames = (scene, *later)
    return AnnotatedImage(
        instances=tuple(instances),
        draw=lambda: tuple(render(frame) for frame in frames),
        free=tuple(location_of(cell) for cell in CELLS if cell not in taken),
        occlusions=tuple(
            Occlusion(by_cell[front.cell], by_cell[back.cell], _meeting(front, back))
            for front, back in pairs
        ),
        num_frames=len(frames),
        origin=(("strokes", scene.num_strokes), ("moves", moves)),
    )


def _meeting(front: Item, back: Item) -> Location:
    """Return the middle of the border between two neighbouring cells."""
    first, second = front.point, back.point
    x, y = (first["x"] + second["x"]) // 2, (first["y"] + second["y"]) // 2
    half = CELL // 2
    name = f"between {front.place} and {back.place}"
    return Location(name, (x - half, y - half, x + half, y + half), (x, y))


def _random_cells(rng: random.Random, count: int, taken: set[Cell]) -> list[Cell]:
    free = [cell for cell in CELLS if cell not in taken]
    return rng.sample(free, min(count, len(free)))


def _compose(
    rng: random.Random,
    num_shapes: int,
    *,
    overlaps: float,
    num_texts: int = 0,
    num_digits: int = 0,
) -> tuple[Scene, list[Pair]]:
    """Compose distinct shapes and texts; return the scene and its overlapping pair, if any."""
    pairs: list[Pair] = []
    if rng.random() < overlaps:
        pair = overlapping_pair(rng, rng.choice(CELLS), rng.choice(DIRECTIONS))
        pairs = [pair] if pair else []
    items = [item for pair in pairs for item in pair]
    taken = {item.cell for item in items}
    names = {item.name for item in items}
    cells = _random_cells(rng, max(0, num_shapes - len(items)), taken)
    items += draw_items(rng, cells, avoid=names)
    taken |= set(cells)
    for count, make in ((num_texts, random_text), (num_digits, random_digit)):
        cells = _random_cells(rng, count, taken)
        items += [make(rng, cell) for cell in cells]
        taken |= set(cells)
    return build_scene(rng, items, rng.choice(CLUTTER_CHOICES)), pairs


def _mixed(rng: random.Random, least: int, most: int, overlaps: float) -> AnnotatedImage:
    return to_picture(*_compose(rng, rng.randint(least, most), overlaps=overlaps))


def _counted(rng: random.Random) -> AnnotatedImage:
    """Draw several objects of one colour or one shape, and some others."""
    count = rng.randint(1, MAX_COUNTED)
    cells = rng.sample(CELLS, count)
    colour, shape = rng.choice(list(PALETTE)), rng.choice(SHAPES)
    by_colour = rng.random() < 0.5
    items = [
        random_item(rng, cell, colour, rng.choice(SHAPES))
        if by_colour
        else random_item(rng, cell, rng.choice(list(PALETTE)), shape)
        for cell in cells
    ]
    others = draw_items(rng, _random_cells(rng, rng.randint(0, 6), set(cells)))
    items += [o for o in others if (o.colour != colour if by_colour else o.shape != shape)]
    return to_picture(build_scene(rng, items, rng.choice(CLUTTER_CHOICES)))


def _written(rng: random.Random) -> AnnotatedImage:
    texts, digits = rng.choice(((1, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (0, 2), (2, 1)))
    scene, pairs = _compose(
        rng, rng.randint(0, 6), overlaps=0.0, num_texts=texts, num_digits=digits
    )
    return to_picture(scene, pairs)


def _moving(rng: random.Random) -> AnnotatedImage:
    """Draw frames in which some objects move straight over free cells and the others stay."""
    scene, _ = _compose(rng, rng.randint(2, 6), overlaps=0.0)
    num_frames = rng.choice(FRAMES)
    frames = [scene]
    movers = rng.sample(scene.items, rng.randint(1, min(2, len(scene.items))))
    headings = {item.name: rng.choice(DIRECTIONS) for item in movers}
    moved = set()
    for _ in range(num_frames - 1):
        items = list(frames[-1].items)
        for index, item in enumerate(items):
            down, right = headings.get(item.name, (0, 0))
            cell = (item.cell[0] + down, item.cell[1] + right)
            if cell in CELLS and cell not in {other.cell for other in items}:
                items[index] = replace(item, cell=cell)
                moved.add(item.name)
        frames.append(replace(frames[-1], items=tuple(items)))
    return to_picture(frames[0], later=frames[1:], moves=len(moved))


COMPOSITIONS: dict[str, Callable[[random.Random], AnnotatedImage]] = {
    "attribute_recognition": partial(_mixed, least=1, most=8, overlaps=0.15),
    "object_counting": _counted,
    "geometric_comparison": partial(_mixed, least=2, most=9, overlaps=0.15),
    "spatial_reasoning": partial(_mixed, least=2, most=9, overlaps=0.15),
    "text_extraction": _written,
    "relationship_detection": partial(_mixed, least=2, most=8, overlaps=0.6),
    "temporal_tracking": _moving,
}


class DrawnScenes:
    """An unlimited supply of scenes, drawn when needed."""

    name = "scenes"
    tasks = tuple(COMPOSITIONS)

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """Compose a scene for a task; its pixels are drawn later, when they are needed."""
        return COMPOSITIONS[task](rng)
