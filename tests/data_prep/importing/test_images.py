import base64
import os
import struct
import zlib

import pytest
from PIL import Image

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
        ([], "no_image", "the question has no image"),
        ("text.png", "unreadable_image", "'text.png': an image does not open"),
        ("images", "unreadable_image", "'images' is not a file"),
        ("x" * 5000, "unreadable_image", "cannot be read"),
        ({"bytes": b"", "path": None}, "unreadable_image", "the embedded image: an image does"),
        ("data:image/png;base64,@@", "unreadable_image", "a data: image is broken"),
        ("data:image/png;base64,\ud800", "unreadable_image", "a data: image is broken"),
        ("data:image/png,abc", "unreadable_image", "a data: image must be base64"),
        ("../c.jpg", "outside_folder", "'../c.jpg' lies outside the folder of images"),
        ("images/../../c.jpg", "outside_folder", "lies outside the folder"),
        ("/etc/hostname", "outside_folder", "lies outside the folder"),
        ("http://x.org/a.png", "remote_image", "is an address; nothing is downloaded"),
        ("HTTPS://x.org/a.png", "remote_image", "is an address; nothing is downloaded"),
        ("file:///c.jpg", "remote_image", "is an address; nothing is downloaded"),
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
