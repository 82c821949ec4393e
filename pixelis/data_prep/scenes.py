"""Drawn scenes with known truth: shapes, texts and digits on a 4 x 4 grid of 28-pixel cells.

Shapes may cover each other in part, and pale strokes may clutter the background. One cell is one
visual token of the embedded base (patch 14, merge 2), so that the model can see every item. Rows
and columns count from 1, row 1 at the top.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pixelis.operations.pixels import PALETTE, SHAPES, draw_shape
from pixelis.operations.readers.drawn import ALPHABET, draw_text, text_size
from pixelis.operations.readers.handwritten import (
    DRAWN_SIDE,
    HELD_OUT,
    digit_label,
    draw_digit,
)

CELL = 28
GRID = 4
SIDE = CELL * GRID
RADII = {"small": 5.0, "medium": 8.0, "large": 11.0}
TEXT_LENGTH = 2
# The grey level and its noise stay far inside the operations' tolerance.
BACKGROUND_LEVELS = (222, 246)
GRAIN = 7
# Strokes of clutter are darker than the background by this; for the operations they still belong
# to it, noise included.
CLUTTER_DEPTHS = (20, 45)
CLUTTER_CHOICES = (0, 0, 0, 5, 10, 16)
# How far a shape is drawn from the middle of its cell to overlap its neighbour, in pixels.
OVERLAP_OFFSET = 6
# Shapes whose sides reach the border between two cells at this offset.
OVERLAPPING = ("circle", "square", "cross", "diamond")

Cell = tuple[int, int]
CELLS: tuple[Cell, ...] = tuple((row, col) for row in range(GRID) for col in range(GRID))


@dataclass(frozen=True)
class Item:
    """The item in one cell: a coloured shape, or a text where `text` is not empty."""

    cell: Cell
    colour: str = ""
    shape: str = ""
    size: str = "large"
    text: str = ""
    # Distance from the middle of the cell, in pixels to the right and down.
    offset: tuple[int, int] = (0, 0)
    digit: int | None = None  # for a handwritten text, the index in scikit-learn's digits
    front: bool = False  # whether it is drawn after its neighbours, over their edges

    @property
    def name(self) -> str:
        """Its name in a question: `red circle`, `text` or `digit`."""
        if self.text:
            return "text" if self.digit is None else "digit"
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        """Its row and column as text."""
        return f"row {self.cell[0] + 1} column {self.cell[1] + 1}"

    @property
    def point(self) -> dict[str, int]:
        """The centre of its cell, which every shape covers, as call arguments."""
        row, col = self.cell
        return {"x": col * CELL + CELL // 2, "y": row * CELL + CELL // 2}

    @property
    def box(self) -> list[int]:
        """The box of its cell."""
        row, col = self.cell
        return [col * CELL, row * CELL, (col + 1) * CELL, (row + 1) * CELL]


@dataclass(frozen=True)
class Scene:
    """Items on a grid, the seed of the background's grain, and its strokes of clutter."""

    items: tuple[Item, ...]
    grain_seed: int
    num_strokes: int = 0

    def shapes(self) -> list[Item]:
        """Return the items that are shapes, in reading order."""
        return [item for item in self.items if not item.text]

    def texts(self) -> list[Item]:
        """Return the items that are texts or digits, in reading order."""
        return [item for item in self.items if item.text]

    def at(self, cell: Cell) -> Item | None:
        """Return the item in a cell."""
        return next((item for item in self.items if item.cell == cell), None)

    def caption(self) -> str:
        """Describe every cell in reading order: `none`, `text`, `digit`, or colour and shape."""
        names = {item.cell: item.name for item in self.items}
        return " ".join(names.get(cell, "none") for cell in CELLS)


def draw_items(
    rng: random.Random, cells: Collection[Cell], avoid: Collection[str] = ()
) -> list[Item]:
    """Draw a random shape for each cell, with distinct names that are not in `avoid`."""
    names = [(c, s) for c in PALETTE for s in SHAPES if f"{c} {s}" not in avoid]
    chosen = rng.sample(names, len(cells))
    return [random_item(rng, cell, c, s) for cell, (c, s) in zip(cells, chosen, strict=True)]


def random_item(rng: random.Random, cell: Cell, colour: str, shape: str, size: str = "") -> Item:
    """Return a shape of a name with a small random offset, and a random size if none is given."""
    size = size or rng.choice(list(RADII))
    # At most one pixel: the centre of the cell must stay inside the thinnest shape.
    offset = (rng.randint(-1, 1), rng.randint(-1, 1))
    return Item(cell, colour, shape, size, offset=offset)


def random_text(rng: random.Random, cell: Cell) -> Item:
    """Return a random text of two characters that fits into its cell."""
    while True:
        text = "".join(rng.choice(ALPHABET) for _ in range(TEXT_LENGTH))
        if text_size(text)[0] <= CELL - 2:
            return Item(cell, text=text)


def random_digit(rng: random.Random, cell: Cell) -> Item:
    """Return a random handwritten digit, of the images that its reader does not know."""
    index = rng.choice(HELD_OUT)
    return Item(cell, text=digit_label(index), digit=index)


def overlapping_pair(rng: random.Random, cell: Cell, direction: Cell) -> tuple[Item, Item] | None:
    """Return two large shapes in neighbouring cells, the first drawn over the edge of the second.

    Both cover the middle of their cells. None if the neighbouring cell is outside of the grid.

    Args:
        rng: chooses two names that differ in colour.
        cell: the cell of the first.
        direction: rows down and columns right, from the first to the second.
    """
    down, right = direction
    other = (cell[0] + down, cell[1] + right)
    if other not in CELLS:
        return None
    front_colour, back_colour = rng.sample(list(PALETTE), 2)
    front_shape, back_shape = rng.choice(OVERLAPPING), rng.choice(OVERLAPPING)
    offset = (right * OVERLAP_OFFSET, down * OVERLAP_OFFSET)
    back_offset = (-offset[0], -offset[1])
    return (
        Item(cell, front_colour, front_shape, offset=offset, front=True),
        Item(other, back_colour, back_shape, offset=back_offset),
    )


def build_scene(rng: random.Random, items: Collection[Item], num_strokes: int = 0) -> Scene:
    """Build a scene: sort the items and draw the seed of the background's noise."""
    ordered = tuple(sorted(items, key=lambda item: item.cell))
    return Scene(ordered, rng.getrandbits(31), num_strokes)


def random_scene(
    rng: random.Random, num_shapes: int, num_texts: int = 0, num_digits: int = 0
) -> Scene:
    """Draw a scene of distinct shapes, texts and digits in random cells, sometimes with clutter."""
    cells = rng.sample(CELLS, num_shapes + num_texts + num_digits)
    items = draw_items(rng, cells[:num_shapes])
    items += [random_text(rng, cell) for cell in cells[num_shapes : num_shapes + num_texts]]
    items += [random_digit(rng, cell) for cell in cells[num_shapes + num_texts :]]
    return build_scene(rng, items, rng.choice(CLUTTER_CHOICES))


def drawing_order(scene: Scene) -> list[Item]:
    """Return the items in the order of drawing: those in front come last."""
    return sorted(scene.items, key=lambda item: item.front)


def draw_item(draw: ImageDraw.ImageDraw, item: Item, fill: Any) -> None:
    """Draw a shape in its cell."""
    x1, y1, x2, y2 = item.box
    cx, cy = (x1 + x2) / 2 + item.offset[0], (y1 + y2) / 2 + item.offset[1]
    draw_shape(draw, item.shape, cx, cy, RADII[item.size], fill)


def render(scene: Scene) -> Image.Image:
    """Draw the scene as an RGB image of SIDE x SIDE pixels, a function of the scene alone."""
    grain = np.random.default_rng(scene.grain_seed)
    level = int(grain.integers(*BACKGROUND_LEVELS))
    # Coarse noise (one value for 4 x 4 pixels) keeps the PNG small.
    coarse = grain.integers(-GRAIN, GRAIN + 1, (SIDE // 4, SIDE // 4, 1), dtype=np.int16)
    pixels = np.clip(level + coarse.repeat(4, 0).repeat(4, 1).repeat(3, 2), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(scene.num_strokes):
        x1, y1, x2, y2 = (int(value) for value in grain.integers(0, SIDE, 4))
        grey = level - int(grain.integers(CLUTTER_DEPTHS[0], CLUTTER_DEPTHS[1] + 1))
        draw.line((x1, y1, x2, y2), fill=(grey, grey, grey), width=int(grain.integers(1, 4)))
    for item in drawing_order(scene):
        x1, y1, x2, y2 = item.box
        if item.digit is not None:
            margin = (CELL - DRAWN_SIDE) // 2
            draw_digit(image, item.digit, x1 + margin, y1 + margin)
        elif item.text:
            width, height = text_size(item.text)
            draw_text(image, item.text, (x1 + x2 - width) // 2, (y1 + y2 - height) // 2)
        else:
            draw_item(draw, item, PALETTE[item.colour])
    return image
