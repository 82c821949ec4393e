import io
import json

import pytest
from PIL import Image, ImageDraw

from pixelis.data_prep.importing import Record, RejectedError, convert


def drawn(colour="red", size=(64, 48)):
    image = Image.new("RGB", size, (235, 235, 235))
    ImageDraw.Draw(image).ellipse((10, 10, 30, 30), fill=(215, 35, 40))
    ImageDraw.Draw(image).rectangle((40, 5, 42, 7), fill=colour)
    return image


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder with images/a.png, images/b.png, c.jpg and a text file named text.png."""
    place = tmp_path / "input"
    (place / "images").mkdir(parents=True)
    for name, colour in (("a", "blue"), ("b", "lime")):
        (place / f"images/{name}.png").write_bytes(png(drawn(colour)))
    drawn("purple").save(place / "c.jpg", quality=95)
    (place / "text.png").write_text("no image at all", encoding="utf-8")
    return place


@pytest.fixture
def take(folder):
    """Convert one record that must be accepted; gives its examples."""

    def take(data, record_format, **options):
        record = Record("some.jsonl", 7, data)
        return convert(record, folder=folder, record_format=record_format, **options)

    return take


@pytest.fixture
def refuse(take):
    """Convert one record that must be rejected; gives reason and detail."""

    def refuse(data, record_format, **options):
        with pytest.raises(RejectedError) as caught:
            take(data, record_format, **options)
        rejection = caught.value.at("some.jsonl", 7)
        assert (rejection.file, rejection.line) == ("some.jsonl", 7)
        assert len(rejection.detail) <= 300 and "\n" not in rejection.detail
        json.dumps(rejection.detail).encode()
        rejection.detail.encode("utf-8")
        return rejection.reason, rejection.detail

    return refuse
