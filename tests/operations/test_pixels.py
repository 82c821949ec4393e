import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.operations.pixels import (
    COLOURS,
    PALETTE,
    SHAPES,
    TOLERANCE,
    background_colour,
    bounding_box,
    colour_name,
    draw_shape,
    foreground,
    grow_region,
    largest_region,
    mask_iou,
    pixel_array,
    shape_name,
)


def drawn(shape, radius, centre=(30.0, 30.0)):
    canvas = Image.new("L", (60, 60), 0)
    draw_shape(ImageDraw.Draw(canvas), shape, *centre, radius, 255)
    return np.asarray(canvas) > 0


@pytest.mark.parametrize("radius", [5, 8, 11, 25])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_told_from_the_others_at_every_size(shape, radius):
    for dx in (-1, 0, 1):
        assert shape_name(drawn(shape, radius, (30 + dx, 30 - dx))) == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_one_region_about_its_centre(shape):
    mask = drawn(shape, 8)
    assert mask[30, 30]
    assert (largest_region(mask) == mask).all()
    assert bounding_box(mask) == (22, 22, 39, 39)


def test_an_unknown_shape_lists_what_exists():
    with pytest.raises(ValueError, match=f"^shape must be one of {', '.join(SHAPES)}, got 'star'$"):
        draw_shape(ImageDraw.Draw(Image.new("L", (9, 9))), "star", 4, 4, 3, 255)


@pytest.mark.parametrize("name", PALETTE)
def test_a_colour_keeps_its_name_when_it_is_a_little_off(name):
    rgb = np.array(PALETTE[name])
    for channel in range(3):
        for shift in (-20, 0, 20):
            assert colour_name(rgb + shift * np.eye(3, dtype=int)[channel]) == name


@pytest.mark.parametrize("name", COLOURS)
def test_photographs_have_more_names_and_each_colour_has_its_own(name):
    assert set(COLOURS) - set(PALETTE) == {"black", "white", "gray", "brown", "pink"}
    assert {key: COLOURS[key] for key in PALETTE} == PALETTE
    assert colour_name(np.array(COLOURS[name])) == name


def test_palette_colours_differ_by_more_than_the_tolerance():
    # Else two objects that touch would grow into one.
    colours = [np.array(rgb) for rgb in PALETTE.values()]
    for index, colour in enumerate(colours):
        for other in colours[:index]:
            assert np.abs(colour - other).max() > TOLERANCE


def test_the_background_is_the_edge_s_median():
    image = Image.new("RGB", (40, 40), (230, 231, 232))
    ImageDraw.Draw(image).rectangle((0, 0, 12, 35), fill=(215, 35, 40))
    pixels = pixel_array(image)
    assert background_colour(pixels).tolist() == [230, 231, 232]
    mask = foreground(pixels, background_colour(pixels))
    assert bounding_box(mask) == (0, 0, 13, 36) and mask.sum() == 13 * 36


def test_channel_differences_do_not_wrap_round():
    image = Image.new("RGB", (4, 4), (250, 250, 250))
    image.putpixel((1, 1), (0, 250, 250))
    pixels = pixel_array(image)
    assert foreground(pixels, background_colour(pixels)).sum() == 1
    assert grow_region(pixels, 1, 1).sum() == 1
    assert grow_region(pixels, 0, 0).sum() == 15


def test_corners_do_not_connect():
    mask = np.eye(5, dtype=bool)
    mask[4, 3] = True
    assert largest_region(mask).sum() == 3
    assert bounding_box(largest_region(mask)) == (3, 3, 5, 5)
    assert not largest_region(np.zeros((3, 3), dtype=bool)).any()


def test_overlap_is_intersection_over_union():
    a = np.array([[True, True, False, False]])
    b = np.array([[False, True, True, False]])
    assert mask_iou(a, b) == 1 / 3
    assert mask_iou(a, a) == 1.0
    assert mask_iou(~(a | ~a), a & ~a) == 0.0


@pytest.mark.parametrize(
    ("grey", "name"), [(10, "black"), (60, "black"), (110, "gray"), (190, "white"), (185, "gray")]
)
def test_what_has_no_colour_is_black_gray_or_white(grey, name):
    for tint in ((0, 0, 0), (10, 0, -10), (-8, 4, 12)):
        assert colour_name(np.array(tint) + grey) == name
