import base64
import io
import os
import re
import struct
import zlib
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixelis.data.images import encode_image
from pixelis.data_prep.importing import Record, convert, open_input, read_records

BASE = {"question": "What?", "answer": "a circle"}


def sample(image):
    return BASE | {"images": image}


@pytest.mark.parametrize(
    "name", ["images/a.png", "./images/a.png", "images/../images/a.png", ["c.jpg"]]
)
def test_a_path_inside_the_folder(take, name):
    assert take(sample(name), "cota")[0].images[0].size == (64, 48)


def test_an_absolute_path_counts_by_where_it_leads(take, refuse, folder):
    take(sample(str(folder / "c.jpg")), "cota")
    assert refuse(sample(os.path.abspath(os.sep)), "cota")[0] == "outside_folder"


@pytest.mark.parametrize("name", ["images\\a.png", ".\\images\\a.png", "input\\images/a.png"])
def test_a_path_with_either_slash(take, name):
    assert take(sample(name), "cota")[0].images[0].size == (64, 48)


def test_a_path_from_a_folder_above_the_images(take, folder):
    # As where image_folder is named, and the records tell paths from their own folder.
    above = [folder.name, f"{folder.parent.name}/{folder.name}", f"{folder.name}/images/.."]
    for name in above:
        assert take(sample(f"{name}/c.jpg"), "cota")[0].images[0].size == (64, 48)
    assert convert(
        Record("a.jsonl", 1, sample("images/a.png")), folder=folder / "images", record_format="cota"
    )


def test_what_lies_in_the_folder_itself_comes_first(take, folder):
    (folder / "input").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "input/c.jpg")
    assert take(sample("input/c.jpg"), "cota")[0].images[0].size == (8, 8)


def test_file_addresses_inside_the_folder(take, folder):
    (folder / "a b%.png").write_bytes((folder / "images/a.png").read_bytes())
    names = [(folder / "c.jpg").as_uri(), f"file://localhost{folder}/c.jpg", "FILE://c.jpg"]
    names += [(folder / "a b%.png").as_uri(), f"file://{folder}/a b%.png", "file://images/a.png"]
    names.append(f"file:{folder}/c.jpg")
    for name in names:
        assert take(sample(name), "cota")[0].images[0].size == (64, 48)


def encoded(folder):
    return base64.b64encode((folder / "c.jpg").read_bytes()).decode()


@pytest.mark.parametrize(
    "head",
    [
        "data:image/jpeg;base64,",
        "DATA:image/jpeg;BASE64,",
        "data:;base64,",
        "data:image/jpeg;charset=utf-8;base64,",
        "data:image/jpeg; base64 ,",
        "data:application/octet-stream;base64,",
        " data:image/jpeg;base64,\n",
        "",
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n",
        lambda text: text.rstrip("="),
        lambda text: text.translate(str.maketrans("+/", "-_")),
    ],
    ids=["plain", "lines", "no padding", "url alphabet"],
)
def test_base64_in_every_wrapping(take, folder, head, wrap):
    text = encoded(folder)
    if head:
        text = wrap(text)
    else:  # the first characters say what it is
        text = text[:4] + wrap(text[4:])
    (example,) = take(sample(head + text), "cota")
    assert encode_image(example.images[0]) == (folder / "c.jpg").read_bytes()


def test_a_data_address_of_percent_encoded_bytes(take, folder):
    held = (folder / "c.jpg").read_bytes()
    for address in (
        "data:image/jpeg," + quote(held, safe=""),
        "data:image/jpeg;base64," + quote(encoded(folder), safe=""),
    ):
        assert encode_image(take(sample(address), "cota")[0].images[0]) == held


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_bare_base64_of_every_format(take, kind):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, kind)
    text = base64.b64encode(buffer.getvalue()).decode()
    forms = [text, {"bytes": text, "path": None}, {"base64": text}, {"data": text}]
    for form in forms:
        assert take(sample(form), "cota")[0].images[0].size == (20, 10)
    part = {"type": "image", "source": {"type": "base64", "data": text}}
    turns = [{"role": "user", "content": [part, "What?"]}, {"role": "assistant", "content": "A."}]
    assert take({"messages": turns}, "messages")[0].images[0].size == (20, 10)


def test_no_message_quotes_base64(refuse, folder):
    text = encoded(folder)
    broken = [text[:-40] + "*" * 36, "data:image/jpeg;base64," + text[:40], "x" + text]
    broken += [text[:4] + "A" * 3000]
    broken += [f"/{text}.png", f"http://x.org/{text}", {"path": "x" + text}, [[text]]]
    for image in broken:
        reason, detail = refuse(sample(image), "cota")
        longest = max(len(word) for word in re.split(r"[^\w+/=]", detail))
        assert longest < 200, (reason, detail)


@pytest.mark.parametrize("name", ["images", "image"])
@pytest.mark.parametrize("several", [False, True])
def test_images_of_a_parquet_file(folder, name, several):
    held, path = (folder / "c.jpg").read_bytes(), folder / "some.parquet"
    forms = [held, {"bytes": held, "path": None}, {"bytes": None, "path": "c.jpg"}, "c.jpg"]
    for form in [*forms, base64.b64encode(held).decode()]:
        record = {"question": "What?", "answer": "A.", name: [form, form] if several else form}
        pq.write_table(pa.Table.from_pylist([record]), path)
        source = open_input(path)
        (read,) = read_records(source)
        (example,) = convert(read, folder=source.folder, record_format=source.format)
        assert len(example.images) == 1 + several
        assert {encode_image(image) for image in example.images} == {held}


def test_a_list_of_images_as_json_text(take):
    (example,) = take(sample('["images/a.png", "c.jpg"]'), "cota")
    assert len(example.images) == 2


def test_an_empty_field_beside_the_images_is_absent(take):
    assert len(take(sample([]) | {"image": "c.jpg"}, "cota")[0].images) == 1


def test_embedded_bytes_and_data_addresses(take, folder):
    held = (folder / "c.jpg").read_bytes()
    address = "data:image/jpeg;base64," + base64.b64encode(held).decode()
    images = [address, {"bytes": held, "path": None}, {"bytes": None, "path": "c.jpg"}, held]
    (example,) = take(sample(images), "cota")
    assert len({image.tobytes() for image in example.images}) == 1


@pytest.mark.parametrize(
    ("image", "reason", "text"),
    [
        ("gone.png", "no_image", "'gone.png' does not exist in the folder"),
        ("c.jpg/x.png", "no_image", "does not exist in the folder"),
        (" ", "no_image", "an image's path is empty"),
        ({"bytes": None, "path": None}, "no_image", "an image has neither bytes nor a path"),
        ([], "no_image", "the record names no image"),
        ("text.png", "unreadable_image", "'text.png': an image does not open"),
        ("images", "unreadable_image", "'images' is not a file"),
        ("x" * 5000, "unreadable_image", "cannot be read"),
        ({"bytes": b"", "path": None}, "unreadable_image", "the embedded image: an image does"),
        ("data:image/png;base64,@@", "unreadable_image", "a data: image is broken"),
        ("data:image/png;base64,\ud800", "unreadable_image", "a data: image is broken"),
        ("data:image/png,abc", "unreadable_image", "the embedded image: an image does not open"),
        ("data:image/png", "unreadable_image", "the embedded image: an image does not open"),
        ("data:image/png,\ud800", "unreadable_image", "a data: image is broken"),
        ("iVBORw0KGgo" + "@" * 99, "unreadable_image", "the embedded image is broken"),
        ("iVBORw0KGgo" + "A" * 99, "unreadable_image", "the embedded image: an image does not"),
        ("../c.jpg", "outside_folder", "'../c.jpg' lies outside the folder of images"),
        ("images/../../c.jpg", "outside_folder", "lies outside the folder"),
        ("/etc/hostname", "outside_folder", "lies outside the folder"),
        ("http://x.org/a.png", "remote_image", "is an address; nothing is downloaded"),
        ("HTTPS://x.org/a.png", "remote_image", "is an address; nothing is downloaded"),
        ("s3://x/a.png", "remote_image", "is an address; nothing is downloaded"),
        ("file:///c.jpg", "outside_folder", "'file:///c.jpg' lies outside the folder of images"),
        ("file://../c.jpg", "outside_folder", "lies outside the folder of images"),
        ("file://host/c.jpg", "no_image", "does not exist in the folder"),
        ("file:///a%00b.png", "characters", "an image's path may not hold control characters"),
        ("..\\c.jpg", "no_image", "does not exist in the folder"),
        (3, "wrong_type", "an image must be a path or bytes, got 3"),
        ([["c.jpg"]], "wrong_type", "an image must be a path or bytes, got ['c.jpg']"),
        ({"bytes": 3}, "wrong_type", "an image must be a path or bytes, got 3"),
        ("a\x00.png", "characters", "an image's path may not hold control characters"),
        ("\ud800.png", "characters", "an image's path may not hold control characters"),
        (["c.jpg"] * 65, "too_large", "a record may have 64 images, got 65"),
    ],
)
def test_an_image_that_cannot_be_used(refuse, image, reason, text):
    found = refuse(sample(image), "cota")
    assert found[0] == reason and text in found[1]


def test_links_are_followed_and_judged_by_their_end(take, refuse, folder):
    (folder / "inside.png").symlink_to(folder / "images/a.png")
    take(sample("inside.png"), "cota")
    secret = folder.parent / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (folder / "link.png").symlink_to(secret)
    (folder / "up").symlink_to(folder.parent)
    for name in ("link.png", "up/secret.png"):
        assert refuse(sample(name), "cota")[0] == "outside_folder"
    (folder / "circle.png").symlink_to("circle.png")
    reason, text = refuse(sample("circle.png"), "cota")
    assert reason == "unreadable_image" and "cannot be read" in text


def test_a_pipe_is_not_waited_for(refuse, folder):
    os.mkfifo(folder / "pipe.png")
    found = refuse(sample("pipe.png"), "cota")
    assert found == ("unreadable_image", "'pipe.png' is not a file")


def test_sizes_are_bounded(refuse, folder, monkeypatch):
    monkeypatch.setattr("pixelis.data_prep.importing.images.MAX_BYTES", 100)
    reason, text = refuse(sample("c.jpg"), "cota")
    assert reason == "too_large" and "'c.jpg': an image may have 100 bytes, got " in text
    monkeypatch.undo()
    monkeypatch.setattr("pixelis.data_prep.importing.images.MAX_RECORD_PIXELS", 64 * 48)
    reason, text = refuse(sample(["c.jpg", "c.jpg"]), "cota")
    assert (reason, text) == ("too_large", "a record's images may have 3072 pixels together")


@pytest.mark.parametrize(
    ("size", "reason"), [((0, 0), "unreadable_image"), ((50_000, 50_000), "too_large")]
)
def test_a_picture_of_impossible_size(refuse, folder, size, reason):
    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    body = header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert refuse(sample("odd.png"), "cota")[0] == reason
