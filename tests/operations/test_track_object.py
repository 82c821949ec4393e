import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES, draw_shape
from pixelis.operations.track_object import agreement

CELL, SIDE = 28, 112
NAMES = [(colour, shape) for colour in PALETTE for shape in SHAPES]


def paper(rng):
    """Grainy grey with some pale clutter, as scenes have it."""
    level = rng.randint(222, 246)
    grain = np.random.default_rng(rng.getrandbits(31)).integers(-7, 8, (28, 28, 1))
    pixels = (level + grain).clip(0, 255).repeat(4, 0).repeat(4, 1).repeat(3, 2)
    image = Image.fromarray(pixels.astype(np.uint8))
    for _ in range(6):
        ends = [rng.randrange(SIDE) for _ in range(4)]
        grey = level - rng.randint(10, 50)
        ImageDraw.Draw(image).line(ends, fill=(grey,) * 3, width=rng.randint(1, 2))
    return image


def frame_of(rng, things):
    """Things are (colour, shape, radius, x, y): the centre in pixels."""
    image = paper(rng)
    for colour, shape, radius, x, y in things:
        draw_shape(ImageDraw.Draw(image), shape, x, y, radius, PALETTE[colour])
    return image


def box_about(x, y):
    return [x - 14, y - 14, x + 14, y + 14]


def track(images, box, frames=None):
    frames = frames or list(range(1, len(images) + 1))
    return execute("TRACK_OBJECT", {"frames": frames, "bbox": box}, images).result


def crowd(rng, count):
    """One thing to follow, the others around it: names and sizes differ, cells too."""
    names = rng.sample(NAMES, count)
    radii = [rng.choice((5, 8, 11)) for _ in names]
    cells = rng.sample([(row, col) for row in range(4) for col in range(4)], count)
    centres = [(14 + col * CELL, 14 + row * CELL) for row, col in cells]
    return [(*name, r, *c) for name, r, c in zip(names, radii, centres, strict=True)]


def off(found, truth):
    return max(abs(a - b) for a, b in zip(found, truth, strict=True))


def test_an_object_that_goes_from_cell_to_cell_is_followed_among_others():
    for seed in range(60):
        rng = random.Random(f"track:{seed}")
        (target, *others) = crowd(rng, rng.randint(1, 8))
        taken = {(x, y) for *_, x, y in others}
        free = [
            (14 + c * CELL, 14 + r * CELL)
            for r in range(4)
            for c in range(4)
            if (14 + c * CELL, 14 + r * CELL) not in taken
        ]
        path = [target[3:], *(rng.choice(free) for _ in range(2))]
        frames = [frame_of(rng, [*others, (*target[:3], *place)]) for place in path]
        result = track(frames, box_about(*path[0]))
        truth = [box_about(*place) for place in path]
        assert result.get("boxes", [])[:1] == truth[:1], (seed, result)
        assert all(off(a, b) <= 1 for a, b in zip(result["boxes"], truth, strict=True)), seed


def test_an_object_that_moves_by_a_few_pixels_is_followed():
    for seed in range(40):
        rng = random.Random(f"few:{seed}")
        colour, shape = rng.choice(NAMES)
        radius = rng.choice((5, 8, 11))
        path = [(42, 42)]
        for _ in range(3):
            x, y = path[-1]
            path.append((x + rng.randint(-5, 5), y + rng.randint(-5, 5)))
        still = [("green" if colour != "green" else "red", "square", 8, 98, 98)]
        frames = [frame_of(rng, [*still, (colour, shape, radius, *place)]) for place in path]
        result = track(frames, box_about(42, 42))
        for found, place in zip(result["boxes"], path, strict=True):
            assert off(found, box_about(*place)) <= 1, (seed, result)


def test_an_object_that_has_gone_is_not_found():
    for seed in range(60):
        rng = random.Random(f"gone:{seed}")
        (target, *others) = crowd(rng, rng.randint(1, 8))
        # A circle and a square of one colour and size share too much to be told apart.
        others = [thing for thing in others if thing[0] != target[0]]
        frames = [frame_of(rng, [target, *others]), frame_of(rng, others)]
        box = box_about(*target[3:])
        assert track(frames, box) == {"error": f"the object of {box} is not found in frame 2"}


def photograph(size, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def moved(image, dx, dy):
    return Image.fromarray(np.roll(np.asarray(image), (dy, dx), (0, 1)))


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 480), [100, 80, 200, 180]),
        ((640, 480), [300, 200, 340, 225]),
        ((3000, 2000), [900, 700, 1500, 1300]),  # searched scaled down, then refined
        ((4000, 3000), [10, 10, 3500, 2500]),
    ],
)
def test_photographs_to_the_pixel(size, box):
    image = photograph(size)
    truth = [a + b for a, b in zip(box, (37, -5, 37, -5), strict=True)]
    assert track([image, moved(image, 37, -5)], box) == {"boxes": [box, truth]}


def test_of_equal_places_the_nearest_to_the_box_before_is_taken():
    image = Image.new("RGB", (90, 30), (240, 240, 240))
    before = image.copy()
    ImageDraw.Draw(before).rectangle((45, 10, 50, 15), fill=(200, 0, 0))
    for left in (5, 35, 75):
        ImageDraw.Draw(image).rectangle((left, 10, left + 5, 15), fill=(200, 0, 0))
    boxes = track([before, image], [40, 5, 56, 21])["boxes"]
    assert boxes == [[40, 5, 56, 21], [30, 5, 46, 21]]


def test_only_the_frames_asked_for_are_looked_at_and_they_may_differ_in_size():
    image = Image.new("RGB", (60, 40), (240, 240, 240))
    larger = Image.new("L", (90, 80), 240)
    for canvas, x in ((image, 10), (larger, 60)):
        ImageDraw.Draw(canvas).rectangle((x, 10, x + 7, 17), fill="black")
    images = [Image.new("RGB", (3, 3)), image, Image.new("RGB", (3, 3)), larger]
    result = track(images, [6, 6, 22, 22], [2, 4])
    assert result == {"boxes": [[6, 6, 22, 22], [56, 6, 72, 22]]}
    assert track([image, image], [0, 0, 60, 40]) == {"boxes": [[0, 0, 60, 40]] * 2}


def test_a_box_larger_than_a_frame_names_both_sizes():
    image = Image.new("RGB", (60, 40))
    image.paste((255, 0, 0), (5, 5, 10, 10))
    result = track([image, Image.new("RGB", (30, 10))], [0, 0, 28, 28])
    rule = "bbox must fit into every frame: it is 28 x 28, frame 2 is 30 x 10"
    assert result == {"error": rule}


def test_an_empty_box_holds_nothing_to_follow():
    image = paper(random.Random(0))
    for width in (2, 3):
        before = image.copy()
        ImageDraw.Draw(before).rectangle((40, 40, 39 + width, 44), fill=(215, 35, 40))
        result = track([image, before, before], [28, 28, 56, 56], [2, 3])
        error = {"error": "no object in [28, 28, 56, 56] of frame 2"}
        assert result == (error if width == 2 else {"boxes": [[28, 28, 56, 56]] * 2})


def test_one_image_is_not_enough():
    result = track([Image.new("RGB", (60, 40))], [0, 0, 28, 28], [1, 2])
    assert result == {"error": "TRACK_OBJECT needs at least 2 images, got 1"}


@pytest.mark.parametrize(
    "frames",
    [None, 2, "12", [], [1], [2, 1], [1, 1], [0, 1], [1, 4], [1, 2.0], [True, 2], [1, 3, 2]],
)
def test_frames_ascend_within_the_images(frames):
    images = [Image.new("RGB", (30, 30))] * 3
    arguments = {"frames": frames, "bbox": [0, 0, 9, 9]}
    rule = "frames must be at least 2 strictly ascending integers in [1, 3]"
    assert execute("TRACK_OBJECT", arguments, images).result == {"error": f"{rule}, got {frames!r}"}


def test_the_box_lies_in_the_first_frame_asked_for():
    images = [Image.new("RGB", (90, 90)), Image.new("RGB", (30, 20)), Image.new("RGB", (90, 90))]
    rule = "bbox must satisfy 0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20, got [0, 0, 40, 20]"
    assert track(images, [0, 0, 40, 20], [2, 3]) == {"error": rule}


def test_a_neighbour_that_reaches_into_the_box_does_not_count():
    template = np.full((28, 28, 3), 230, dtype=np.int16)
    template[10:18, 10:18] = (215, 35, 40)
    match = template.copy()
    match[:, :4] = (35, 70, 215)
    assert agreement(template, match) == 1
    match[10:18, 14:18] = 230
    assert agreement(template, match) == 0.5
    assert agreement(template * 0, template * 0 + 9) == 1
    assert agreement(template * 0, template * 0 + 99) == 0
