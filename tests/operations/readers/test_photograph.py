import socket
import sys
from subprocess import run

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES, draw_shape, pixel_array
from pixelis.operations.readers import photograph
from pixelis.operations.readers.drawn import draw_text
from pixelis.operations.readers.photograph import HINT, holds_drawing_only

needs_ocr = pytest.mark.skipif(not photograph.installed(), reason="needs the extra `ocr`")


@pytest.fixture(scope="module")
def page():
    """A photographed page of a book, 384 x 191 pixels, with uneven light."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.page())


@pytest.fixture
def without_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def read(image, box):
    return execute("READ_TEXT", {"bbox": list(box)}, [image]).result


def drawings():
    """Whatever scenes hold but digits, each in a cell of its own scene."""
    for background in (222, 246):
        grain = np.random.default_rng(background).integers(-7, 8, (28, 28, 1))
        pixels = (background + grain).clip(0, 255).repeat(4, 0).repeat(4, 1).repeat(3, 2)
        paper = Image.fromarray(pixels.astype(np.uint8))
        ImageDraw.Draw(paper).line((0, 3, 110, 90), fill=(background - 45,) * 3, width=2)
        yield paper
        for shape in SHAPES:
            for colour in PALETTE.values():
                image = paper.copy()
                draw_shape(ImageDraw.Draw(image), shape, 42, 42, 11, colour)
                yield image
        image = paper.copy()
        draw_text(image, "WW", 27, 35)  # too wide for its cell, so that no reader reads it
        yield image


BOXES = [(28, 28, 56, 56), (0, 0, 112, 112), (36, 36, 48, 48), (40, 20, 90, 60)]


@needs_ocr
def test_a_photographed_page_is_read(page):
    lines = read(page, (0, 0, 384, 191))["text"]
    assert lines.startswith("Region-based segmentation Let us first determine markers of the coins")
    assert "unambiguously as either object or background" in lines
    assert read(page, (0, 0, 300, 40)) == {"text": "Region-based segmentation"}
    assert page.mode == "L" and read(page, (0, 0, 300, 40)) == read(page, (0, 0, 300, 40))


@needs_ocr
def test_colours_are_handed_over_in_the_right_order():
    # Blue on yellow, large enough for any reader.
    image = Image.new("RGB", (700, 90), (240, 220, 60))
    ImageDraw.Draw(image).text((20, 15), "Harbour 1947", fill=(20, 30, 120), font_size=50)
    assert read(image, (0, 0, 700, 90)) == {"text": "Harbour 1947"}


@needs_ocr
def test_no_network_is_needed(page, monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    photograph._engine.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert read(page, (0, 0, 300, 40)) == {"text": "Region-based segmentation"}


def test_what_scenes_hold_never_comes_to_this_reader(monkeypatch):
    def engine():
        raise AssertionError("a drawing came to the reader of photographs")

    monkeypatch.setattr(photograph, "_engine", engine)
    for image in drawings():
        for box in BOXES:
            assert holds_drawing_only(pixel_array(image), box)
            # In a box wide enough the drawn text is read, by its own reader.
            assert read(image, box) in ({"error": f"no text in {list(box)}"}, {"text": "WW"})


@pytest.mark.parametrize("ink", [(0, 0, 0), (20, 20, 21), (100, 60, 30)])
def test_other_ink_is_no_drawing(ink):
    image = Image.new("RGB", (40, 40), (230, 230, 230))
    assert holds_drawing_only(pixel_array(image), (0, 0, 40, 40))
    ImageDraw.Draw(image).line((4, 4, 36, 5), fill=ink)
    assert not holds_drawing_only(pixel_array(image), (0, 0, 40, 40))
    assert holds_drawing_only(pixel_array(image), (0, 20, 40, 40))


def test_without_the_extra_the_error_says_what_to_install(page, without_extra):
    error = "no text in [0, 0, 300, 40]; to read photographs, install the extra: "
    assert read(page, (0, 0, 300, 40)) == {"error": f"{error}pip install 'pixelis[ocr]'"}
    assert HINT in read(page, (0, 0, 384, 191))["error"]


def test_rapidocr_is_imported_only_when_a_photograph_is_read():
    code = "import sys, pixelis.operations; sys.exit('rapidocr' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
