import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from pixelis.data_prep.scenes import CELLS, Item
from pixelis.operations import execute
from pixelis.operations.read_text import READERS
from pixelis.operations.readers.drawn import ALPHABET, GAP, draw_text, glyph, text_size

# Of all texts of two characters, these reach beyond a scene's cell of 28 pixels, and the first
# cannot be read inside it; the generator never asks for it, because it checks every result.
WIDER_THAN_A_CELL = {"WW", "WM", "MW"}
UNREADABLE_IN_A_CELL = {"WW"}


def read(image, box):
    return execute("READ_TEXT", {"bbox": list(box)}, [image]).result


def test_every_pair_of_characters_is_read_exactly():
    for pair in itertools.product(ALPHABET, repeat=2):
        text = "".join(pair)
        image = Image.new("RGB", (40, 20), (230, 230, 230))
        draw_text(image, text, 3, 4)
        assert read(image, (0, 0, 40, 20)) == {"text": text}


def test_the_ink_fills_text_size_but_for_a_faint_edge():
    for text in ("A", "W7", "HELL", "3M4"):
        image = Image.new("RGB", (90, 30), (255, 255, 255))
        draw_text(image, text, 5, 6)
        left, top, right, bottom = ImageOps.invert(image).getbbox()
        width, height = text_size(text)
        assert 5 <= left <= 6 and 4 + width <= right <= 5 + width
        assert 6 <= top <= 7 and 5 + height <= bottom <= 6 + height
        gaps = GAP * (len(text) - 1)
        assert text_size(text)[0] == sum(glyph(c).shape[1] for c in text) + gaps


def test_every_text_of_every_scene_is_read_in_its_cell(scenes):
    checked = 0
    for scene, image in scenes:
        for item in scene.texts():
            if item.digit is None and item.text not in UNREADABLE_IN_A_CELL:
                assert read(image, item.box) == {"text": item.text}
                checked += 1
    assert checked > 100


def test_cells_without_text_hold_none(scenes):
    for scene, image in scenes:
        if any(item.text in WIDER_THAN_A_CELL for item in scene.texts()):
            continue
        for cell in CELLS:
            found = scene.at(cell)
            if found is None or not found.text:
                box = Item(cell).box
                assert read(image, box) == {"error": f"no text in {box}"}


def test_a_box_is_read_only_if_every_group_of_ink_is_a_character():
    image = Image.new("RGB", (60, 20), (230, 230, 230))
    draw_text(image, "A7", 3, 4)
    assert read(image, (0, 0, 60, 20)) == {"text": "A7"}
    ImageDraw.Draw(image).rectangle((40, 3, 42, 16), fill=(20, 20, 20))
    assert read(image, (0, 0, 60, 20)) == {"error": "no text in [0, 0, 60, 20]"}
    assert read(image, (0, 0, 39, 20)) == {"text": "A7"}


def test_the_font_at_another_size_is_not_the_drawn_reader_s():
    image = Image.new("RGB", (60, 20), (230, 230, 230))
    draw_text(image, "A7", 3, 4)
    twice = np.asarray(image.resize((120, 40)), dtype=np.int16)
    assert READERS["drawn"](twice, (0, 0, 120, 40)) is None


def test_readers_are_asked_in_order_until_one_reads(monkeypatch):
    assert list(READERS) == ["drawn", "handwritten", "photograph"]
    image, asked = Image.new("RGB", (9, 9)), []

    def reader(name, text):
        return lambda pixels, box: asked.append((name, pixels.shape, box)) or text

    monkeypatch.setitem(READERS, "drawn", reader("drawn", None))
    monkeypatch.setitem(READERS, "handwritten", reader("handwritten", "7"))
    monkeypatch.setitem(READERS, "photograph", reader("photograph", "no"))
    assert read(image, (1, 2, 5, 6)) == {"text": "7"}
    expected = [(name, (9, 9, 3), (1, 2, 5, 6)) for name in ("drawn", "handwritten")]
    assert asked == expected


def test_a_text_that_would_fill_the_conversation_is_refused(monkeypatch):
    image = Image.new("RGB", (9, 9))
    monkeypatch.setitem(READERS, "drawn", lambda pixels, box: "A" * 400)
    assert read(image, (0, 0, 9, 9)) == {"text": "A" * 400}
    monkeypatch.setitem(READERS, "drawn", lambda pixels, box: "A" * 401)
    rule = "bbox must hold at most 400 characters, got 401"
    assert read(image, (0, 0, 9, 9)) == {"error": rule}
