import copy
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data import images
from pixelis.data.images import ImageError, encode_image, image_digest, load_image


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height):
    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture(scope="module")
def noise():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Bytes that are kept


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_bytes_are_kept_where_the_pixels_need_no_change(noise, kind, mode):
    stored = encoded(noise.convert(mode), kind)
    image = load_image(stored)
    assert encode_image(image) == stored
    assert (image.mode, image.size, image.info) == ("RGB", (32, 24), {})
    later = Image.open(io.BytesIO(stored)).convert("RGB")
    assert image.tobytes() == later.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.crop((0, 0, 8, 8)),
        lambda image: image.resize((9, 9)),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.paste((1, 2, 3), (0, 0, 4, 4)) or image,
        lambda image: image.putpixel((0, 0), (1, 2, 3)) or image,
        lambda image: ImageDraw.Draw(image).rectangle((0, 0, 9, 9), fill="red") or image,
        copy.deepcopy,
        lambda image: pickle.loads(pickle.dumps(image)),
    ],
)
def test_a_changed_image_is_written_anew(noise, change):
    image = change(load_image(encoded(noise, "JPEG")))
    written = encode_image(image)
    assert written.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(written)).tobytes() == image.tobytes()


# Conversion


def test_orientation_is_applied_and_the_bytes_follow(noise):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        stored = encoded(noise, "JPEG", quality=95, exif=exif)
        image = load_image(stored)
        assert image.size == ((32, 24) if orientation < 5 else (24, 32))
        assert (encode_image(image) == stored) == (orientation == 1)
        assert load_image(encode_image(image)).tobytes() == image.tobytes()
    quarter = Image.Exif()
    quarter[274] = 6  # the camera was turned: upright is a quarter clockwise
    turned = load_image(encoded(noise, "PNG", exif=quarter))
    assert turned.tobytes() == noise.transpose(Image.Transpose.ROTATE_270).tobytes()
    # Of other tags, here a resolution that is text, nothing is read.
    entries = struct.pack("<HHIHH", 274, 3, 1, 6, 0) + struct.pack("<HHI4s", 282, 2, 4, b"abc\0")
    odd = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    assert load_image(encoded(noise, "JPEG", exif=odd)).size == (24, 32)
    tiff = load_image(encoded(noise, "TIFF", exif=quarter))
    assert tiff.tobytes() == turned.tobytes()


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    image = load_image(encoded(Image.fromarray(values)))
    assert np.asarray(image)[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    image = load_image(encoded(clear))
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert encode_image(image) != encoded(clear)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((0, 0), 1)
    assert load_image(encoded(palette)).getpixel((0, 0)) == (4, 5, 6)
    assert load_image(encoded(palette, transparency=0)).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_stands_for_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(
        encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    )
    assert image.getpixel((4, 4)) == (255, 0, 0)
    assert encode_image(image).startswith(b"\x89PNG")


def test_a_jpeg_with_a_second_picture_keeps_its_bytes(noise):
    stored = encoded(noise, "MPO", save_all=True, append_images=[noise.convert("L")])
    assert encode_image(load_image(stored)) == stored


# What is refused


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "an image does not open"),
        (b"just a text", "an image does not open"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "an image does not open"),
        (png_header(10, 10), "an image does not open"),
        (png_header(0, 0), "an image does not open"),
        (b"P6\n0 0\n255\n", "an image does not open"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "an image of floating-point values"),
        (encoded(Image.new("I", (4, 4), 70000), "TIFF"), "an image of mode I must hold 16-bit"),
        (encoded(Image.new("I", (4, 4), -1), "TIFF"), "an image of mode I must hold 16-bit"),
        (encoded(Image.new("RGB", (64, 64)), "BMP")[:-100], "an image does not open"),
    ],
)
def test_what_does_not_open_is_refused(stored, message):
    with pytest.raises(ImageError, match=message) as error:
        load_image(stored)
    assert not error.value.too_large


def test_a_reader_that_accepts_no_pixels_is_not_trusted(monkeypatch):
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match=r"^an image must have pixels, got 0 x 5$"):
        load_image(b"x")


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 9_000), (5001, 5000)])
def test_a_size_beyond_the_bound_is_refused_before_it_is_decoded(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"^an image may have at most 25000000 p") as error:
            load_image(png_header(*size))
    assert error.value.too_large


def test_too_many_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match=r"^an image may have at most 10 bytes, got 11$") as error:
        load_image(b"x" * 11)
    assert error.value.too_large


# Digest


def test_the_digest_is_of_all_pixels_in_order(noise):
    grey = noise.convert("L")
    assert image_digest(noise) == image_digest(load_image(encoded(noise)))
    assert image_digest(grey) == image_digest(grey.convert("RGB"))
    assert len({image_digest(noise), image_digest(noise, grey), image_digest(grey, noise)}) == 3
    tall, wide = Image.new("RGB", (2, 8)), Image.new("RGB", (8, 2))
    assert image_digest(tall) != image_digest(wide)
