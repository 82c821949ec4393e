"""Image files of every kind, right and wrong, written as bytes."""

import io
import struct
import zlib

from PIL import Image, ImageDraw


def drawn(mode="RGB", size=(64, 48), colour="red"):
    image = Image.new("RGB", size, (235, 235, 235))
    ImageDraw.Draw(image).ellipse((10, 10, 30, 30), fill=(215, 35, 40))
    ImageDraw.Draw(image).rectangle((40, 5, 42, 7), fill=colour)
    return image.convert(mode)


def saved(image, kind="PNG", **words):
    buffer = io.BytesIO()
    image.save(buffer, kind, **words)
    return buffer.getvalue()


def chunk(name, content):
    ending = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + ending


def png_of_size(width, height, *, depth=8, colour=2, data=b""):
    """A PNG whose header says a size; no pixel of it is there."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp_of_size(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def turned(orientation, kind="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(drawn(), kind, exif=exif)


def sixteen_bit():
    image = Image.new("I;16", (40, 30))
    image.putdata([(x * 1000) % 65536 for x in range(1200)])
    return image


FRAMES = [drawn(colour=colour) for colour in ("red", "blue", "lime")]

# Name -> bytes, size as it is seen.
RIGHT = {
    "rgb.png": (saved(drawn()), (64, 48)),
    "gray.png": (saved(drawn("L")), (64, 48)),
    "bits.png": (saved(drawn("1")), (64, 48)),
    "palette.png": (saved(drawn("P")), (64, 48)),
    "alpha.png": (saved(drawn("RGBA")), (64, 48)),
    "gray_alpha.png": (saved(drawn("LA")), (64, 48)),
    "transparent.gif": (saved(drawn("P"), "GIF", transparency=0), (64, 48)),
    "sixteen.png": (saved(sixteen_bit()), (40, 30)),
    "sixteen.tiff": (saved(sixteen_bit(), "TIFF"), (40, 30)),
    "cmyk.jpg": (saved(drawn("CMYK"), "JPEG"), (64, 48)),
    "cmyk.tiff": (saved(drawn("CMYK"), "TIFF"), (64, 48)),
    "ycbcr.jpg": (saved(drawn("YCbCr"), "JPEG"), (64, 48)),
    "progressive.jpg": (saved(drawn(), "JPEG", progressive=True), (64, 48)),
    "turned.jpg": (turned(6), (48, 64)),
    "mirrored.jpg": (turned(2), (64, 48)),
    "turned.png": (turned(8, "PNG"), (48, 64)),
    "turned.webp": (turned(3, "WEBP"), (64, 48)),
    "unknown_turn.jpg": (turned(77), (64, 48)),
    "animated.gif": (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), (64, 48)),
    "animated.png": (saved(FRAMES[0], save_all=True, append_images=FRAMES[1:]), (64, 48)),
    "animated.webp": (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), (64, 48)),
    "pages.tiff": (saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), (64, 48)),
    "one_pixel.png": (saved(Image.new("RGB", (1, 1))), (1, 1)),
    "line.png": (saved(Image.new("RGB", (3000, 1))), (3000, 1)),
    "drawn.bmp": (saved(drawn(), "BMP"), (64, 48)),
    "drawn.ppm": (saved(drawn(), "PPM"), (64, 48)),
    "named_wrongly.png": (saved(drawn(), "JPEG"), (64, 48)),
}
POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n"
    b"(/tmp/written) (w) file closefile showpage\n%%EOF\n"
)
ENDLESS = saved(drawn())[:-12] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * (80 << 20)))
# Name -> bytes, what the message says of it.
WRONG = {
    "empty.png": (b"", "does not open"),
    "text.png": (b"no image at all", "does not open"),
    "page.png": (b"<html><body>404</body></html>", "does not open"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "does not open"),
    "script.png": (POSTSCRIPT, "does not open"),
    "zero.png": (png_of_size(0, 0), "does not open"),
    "no_width.png": (png_of_size(0, 9), "does not open"),
    "no_width.ppm": (b"P6\n0 9\n255\n", "does not open"),
    "bomb.png": (png_of_size(50_000, 50_000), "pixels"),
    "bomb.bmp": (bmp_of_size(50_000, 50_000), "pixels"),
    "bomb.ppm": (b"P6\n50000 50000\n255\n", "pixels"),
    "large.png": (png_of_size(8_000, 8_000), "at most 25000000 pixels, got 8000 x 8000"),
    "negative.bmp": (bmp_of_size(-50_000, 50_000), "pixels"),
    "widest.png": (png_of_size(2**31 - 1, 1), "pixels"),
    "cut_off.png": (saved(drawn())[:-60], "does not open"),
    "cut_off.jpg": (saved(drawn(), "JPEG")[:-200], "does not open"),
    "no_pixels.png": (png_of_size(64, 48), "does not open"),
    "endless_text.png": (ENDLESS + chunk(b"IEND", b""), "does not open"),
    "floats.tiff": (saved(Image.new("F", (9, 9), 0.5), "TIFF"), "floating-point"),
    "deep.png": (png_of_size(64, 48, depth=64), "does not open"),
}


def write_all(folder):
    """Put them into a folder, beside links that leave it and what is no file."""
    for name, (content, _) in (RIGHT | WRONG).items():
        (folder / name).write_bytes(content)
    outside = folder.parent / "outside.png"
    outside.write_bytes(saved(drawn()))
    (folder / "inside.png").symlink_to("rgb.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "ring.png").symlink_to("ring.png")
    (folder / "folder.png").mkdir()
    (folder / "c.jpg").write_bytes(saved(drawn(), "JPEG"))
