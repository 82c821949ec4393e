"""Images of every kind: seen as their maker meant, or turned away; Pillow's bomb limit stays on."""

import json
import resource

import pytest
from hypothesis import strategies as st
from PIL import EpsImagePlugin

from pixelis.data.images import MAX_PIXELS, ImageError, encode_image, load_image
from pixelis.data.store import from_row
from pixelis.errors import DataError
from tests.faults.hostile import bounded, broken, run_cases
from tests.faults.imports import take
from tests.faults.pictures import RIGHT, WRONG, drawn, saved


def ask(name):
    return {"id": name, "question": "What?", "image": name, "answer": "a circle"}


@pytest.fixture
def imported(folder, tmp_path, encoder):
    def read(*names):
        path = folder / "some.jsonl"
        path.write_text("\n".join(json.dumps(ask(name)) for name in names))
        return take(path, tmp_path / "out", encoder)

    return read


def test_every_kind_that_is_right(imported):
    # A line of 3,000 pixels is for a processor to judge, not for the import.
    names = [name for name in RIGHT if name != "line.png"]
    with bounded():
        examples, rejections = imported(*names)
    assert rejections == []
    found = {example.id: example.images[0] for example in examples}
    assert {name: image.size for name, image in found.items()} == {n: RIGHT[n][1] for n in names}
    assert {image.mode for image in found.values()} == {"RGB"}
    inks = {
        name: image.getpixel((20, 20))
        for name, image in found.items()
        if image.size == (64, 48) and not name.startswith(("turned", "mirrored", "gray", "bits"))
    }
    for name, ink in inks.items():  # palettes and CMYK come near, not exactly
        assert all(abs(a - b) < 45 for a, b in zip(ink, (215, 35, 40), strict=True)), (name, ink)
    # Turned a quarter by EXIF, the circle is where a viewer shows it.
    assert found["turned.jpg"].getpixel((27, 20))[1] < 90
    assert found["sixteen.png"].getpixel((1, 0)) == (4, 4, 4)  # 1,000 of 65,535


def test_every_kind_that_is_wrong(imported):
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = ["rgb.png", *WRONG]
    with bounded():
        examples, rejections = imported(*names)
    assert [example.id for example in examples] == ["rgb.png"]
    for number, (name, (_, says)) in enumerate(WRONG.items(), 2):
        rejection = rejections[number - 2]
        assert (rejection["file"], rejection["line"]) == ("some.jsonl", number)
        assert name in rejection["detail"] and says in rejection["detail"], rejection
        assert rejection["reason"] in ("unreadable_image", "too_large")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started
    assert grown < 300_000  # kilobytes; the bomb would take 7.5 GB


def test_broken_image_bytes():
    def check(content):
        try:
            image = load_image(content)
        except ImageError as error:
            assert "\n" not in str(error)
            return
        assert image.mode == "RGB" and 0 < image.width * image.height <= MAX_PIXELS
        # What is stored is what was seen.
        stored = encode_image(image)
        assert load_image(stored).tobytes() == image.tobytes()

    originals = [content for content, _ in RIGHT.values() if len(content) < 20_000]
    run_cases("image bytes", broken(originals), check)


ROW = {
    "id": "e1",
    "task": "object_counting",
    "sample_type": "positive",
    "question": "How many?",
    "images": [{"bytes": saved(drawn()), "path": None}],
    "trajectory": [
        {
            "thought": "I look.",
            "operation": "ZOOM_IN",
            "arguments": '{"bbox": [0, 0, 9, 9]}',
            "result": '{"size": [18, 18]}',
            "image": {"bytes": saved(drawn()), "path": None},
            "supervised": True,
        }
    ],
    "conclusion": "So.",
    "answer": "1",
    "ground_truth": "1",
    "provenance": "{}",
    "difficulty_score": 0.5,
    "difficulty": "simple",
    "split": "train",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_prepared_image_that_is_wrong_names_its_example(name):
    content, _ = WRONG[name]
    if name == "floats.tiff":
        pytest.skip("no writer of ours makes it, and it does no harm")
    with bounded(), pytest.raises(DataError, match=r"^example e1: an image does not open \("):
        from_row(ROW | {"images": [{"bytes": content, "path": None}]})


def test_postscript_is_given_to_no_program(tmp_path, monkeypatch):
    """Pillow hands it to Ghostscript where that is installed; here a stand-in would tell."""
    told = tmp_path / "told"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {told}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once in a process
    content = WRONG["script.png"][0]
    with pytest.raises(DataError):
        from_row(ROW | {"images": [{"bytes": content, "path": None}]})
    with pytest.raises(ImageError):
        load_image(content)
    assert not told.exists()


@st.composite
def rows(draw):
    from tests.faults.hostile import mutated, values

    return draw(mutated([ROW], values() | st.binary(max_size=30)))


def test_prepared_rows(encoder):
    """As `sft` reads a row of the parquet files; their types are the schema's."""
    import pyarrow as pa

    from pixelis.data.store import SCHEMA
    from tests.faults.imports import check_encoded

    def check(row):
        try:
            held = pa.RecordBatch.from_pylist([row], schema=SCHEMA).to_pylist()[0]
        except (pa.ArrowException, TypeError, OverflowError, ValueError, AttributeError):
            return  # what Arrow does not hold, no file holds
        try:
            example = from_row(held)
        except DataError as error:
            assert "\n" not in str(error)
            return
        try:
            check_encoded(example, encoder)
        except DataError as error:
            assert "U+E000" in str(error)

    run_cases("prepared rows", rows(), check)
