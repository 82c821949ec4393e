import random
import re
import sys
from subprocess import run

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES, draw_shape, pixel_array
from pixelis.operations.readers import handwritten
from pixelis.operations.readers.drawn import ALPHABET, draw_text, read_drawn
from pixelis.operations.readers.handwritten import (
    HELD_OUT,
    digit_label,
    draw_digit,
    read_digit,
)

CELL = 28
BOX = (0, 0, CELL, CELL)


def paper(rng, side=CELL):
    """A cell of grainy light grey with pale strokes, the darkest that scenes have."""
    level = int(rng.integers(222, 247))
    grain = rng.integers(-7, 8, (side // 4, side // 4, 1)).repeat(4, 0).repeat(4, 1).repeat(3, 2)
    image = Image.fromarray((level + grain).clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 3)):
        ends = [int(end) for end in rng.integers(0, side, 4)]
        grey = level - int(rng.integers(10, 51))
        ImageDraw.Draw(image).line(ends, fill=(grey,) * 3, width=int(rng.integers(1, 3)))
    return image


def test_held_out_digits_are_read_and_none_is_passed_on():
    rng, right = np.random.default_rng(0), 0
    for index in HELD_OUT:
        image = paper(rng)
        draw_digit(image, index, 2, 2)
        found = read_digit(pixel_array(image), BOX)
        assert found is not None, index
        assert read_drawn(pixel_array(image), BOX) is None
        right += found == digit_label(index)
    assert right / len(HELD_OUT) > 0.96


def test_the_references_are_not_what_scenes_draw():
    features, labels = handwritten._references()
    assert len(features) == len(labels) == HELD_OUT.start == 900
    assert (labels == handwritten._digits()[1][:900]).all()
    assert HELD_OUT.stop == len(handwritten._digits()[0])
    # Nor is any held-out image a copy of a reference.
    images = handwritten._digits()[0].reshape(-1, 64)
    references = {image.tobytes() for image in images[:900]}
    assert not references & {image.tobytes() for image in images[900:]}


@pytest.mark.parametrize("index", [899, 0, -1, 1797, 2.5, None])
def test_only_held_out_digits_are_drawn(index):
    message = f"index must be in [900, 1796] (HELD_OUT), got {index!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw_digit(Image.new("RGB", (28, 28)), index, 2, 2)


def test_a_digit_is_read_wherever_it_stands_in_a_box_somewhat_larger_or_shifted():
    rng, agreed = np.random.default_rng(1), 0
    for index in HELD_OUT[:200]:
        image = paper(rng, 56)
        draw_digit(image, index, 16, 16)
        boxes = [[14, 14, 42, 42], [8, 10, 46, 44], [2, 2, 54, 54], [12, 15, 42, 43]]
        found = [execute("READ_TEXT", {"bbox": box}, [image]).result.get("text") for box in boxes]
        agreed += len(set(found)) == 1
    assert agreed > 180


def test_nothing_else_in_a_scene_is_a_digit():
    rng, letters = np.random.default_rng(2), random.Random(2)
    for round_ in range(60):
        empty = paper(rng)
        assert read_digit(pixel_array(empty), BOX) is None
        for length in (1, 2):
            image = paper(rng)
            draw_text(image, "".join(letters.choices(ALPHABET, k=length)), 3, 8)
            assert read_digit(pixel_array(image), BOX) is None
        for shape in SHAPES:
            image = paper(rng)
            colour = PALETTE[list(PALETTE)[round_ % 6]]
            draw_shape(ImageDraw.Draw(image), shape, 14, 14, (5, 8, 11)[round_ % 3], colour)
            assert read_digit(pixel_array(image), BOX) is None


def test_noise_dark_paper_and_two_digits_are_no_digit():
    rng = np.random.default_rng(3)
    for _ in range(50):
        noise = rng.integers(0, 256, (28, 28, 1)).repeat(3, 2).astype(np.int16)
        assert read_digit(noise, BOX) is None
    dark = Image.new("RGB", (28, 28), (90, 90, 90))
    draw_digit(dark, 1000, 2, 2)
    assert read_digit(pixel_array(dark), BOX) is None
    two = Image.new("RGB", (56, 28), (230, 230, 230))
    draw_digit(two, 1000, 2, 2)
    draw_digit(two, 1001, 30, 2)
    assert read_digit(pixel_array(two), (0, 0, 56, 28)) is None


def test_scikit_learn_is_imported_only_when_digits_are_needed():
    code = "import sys, pixelis.operations; sys.exit('sklearn' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
