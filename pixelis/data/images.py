"""Images from bytes and back: checked and converted to RGB; unchanged images keep their bytes."""

import hashlib
import io
import re
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pixelis.errors import DataError

# Accepted formats. For EPS, Pillow would run another program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# Formats whose bytes are kept if the pixels need no change; MPO is a JPEG with a second picture.
KEPT_FORMATS = ("PNG", "JPEG", "MPO", "WEBP")
# Below Pillow's own limit of 89 million, because an operation needs 35 bytes per pixel.
MAX_PIXELS = 25_000_000
MAX_BYTES = 64 * 1024 * 1024
# Against Pillow's default of 6, photographs take 0.6 of the time and are 3 % larger; drawn scenes
# take 0.75 of the time and are 13 % larger.
PNG_LEVEL = 3
# Modes that every later reader converts to the same RGB pixels.
_PLAIN_MODES = ("RGB", "L")
_ENCODED = "_pixelis_encoded"


class ImageError(DataError):
    """An image that cannot be used; `too_large` is True if its size is the reason."""

    def __init__(self, text: str, *, too_large: bool = False) -> None:
        """Store the message."""
        super().__init__(text)
        self.too_large = too_large


def load_image(encoded: bytes) -> Image.Image:
    """Decode an image to upright RGB pixels.

    The first frame of an animation is taken, alpha is laid over white, 16 bits are scaled to 8, and
    the EXIF orientation is applied. JPEG, PNG and WebP bytes that need none of this are kept with
    the image for `encode_image`.

    Raises:
        ImageError: when it does not open, is empty, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    if len(encoded) > MAX_BYTES:
        raise ImageError(
            f"an image may have at most {MAX_BYTES} bytes, got {len(encoded)}", too_large=True
        )
    try:
        with warnings.catch_warnings():
            # Warnings about large sizes, which MAX_PIXELS refuses, and unusual metadata.
            warnings.simplefilter("ignore")
            return _decode(encoded)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"an image may have at most {MAX_PIXELS} pixels: {error}", too_large=True
        ) from error
    # Pillow's readers raise many types on broken bytes: OSError, SyntaxError, KeyError...
    except Exception as error:
        # Remove memory addresses, so that the same bytes give the same message.
        reason = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "its bytes", str(error))
        raise ImageError(f"an image does not open ({reason:.100})") from error


def open_header(encoded: bytes) -> Image.Image:
    """Open an image of one of FORMATS without decoding its pixels; Pillow's errors pass through.

    Raises:
        ImageError: when it has no pixels, or more than MAX_PIXELS.
    """
    opened: Image.Image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"an image may have at most {MAX_PIXELS} pixels, got {width} x {height}",
            too_large=True,
        )
    if width * height == 0:
        raise ImageError(f"an image must have pixels, got {width} x {height}")
    return opened


def _decode(encoded: bytes) -> Image.Image:
    opened = open_header(encoded)
    opened.load()
    # After `load`, which turns TIFF itself and removes its tag.
    is_turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    still = opened.format == "MPO" or not getattr(opened, "is_animated", False)
    kept = (
        opened.format in KEPT_FORMATS
        and opened.mode in _PLAIN_MODES
        and "transparency" not in opened.info
        and still
        and not is_turned
    )
    # `exif_transpose` would write all of EXIF again, and fails on odd tags.
    opened.info.pop("exif", None)
    # Kept pixels are not copied: on photographs that is a tenth of the time.
    upright = ImageOps.exif_transpose(opened) if is_turned else opened
    image = upright if kept and upright.mode == "RGB" else _to_rgb(upright)
    # Profiles and comments are not used, and `save` would write them again.
    image.info = {}
    if kept:
        # Pillow replaces `im` of a read-only image before a change, so `encode_image` can see one.
        image.readonly = 1
        setattr(image, _ENCODED, (encoded, image.im))
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"an image of mode {image.mode} must hold 16-bit values")
        scaled = (values.astype(np.uint32) * 255 + 32767) // 65535
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("an image of floating-point values has no fixed white; save it as PNG")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return image.convert("RGB")


def encode_image(image: Image.Image) -> bytes:
    """Return the bytes kept by `load_image` if the image is unchanged since; else encode as PNG."""
    encoded, core = getattr(image, _ENCODED, (b"", None))
    if core is not None and core is image.im:
        return bytes(encoded)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def image_digest(*images: Image.Image) -> str:
    """Return the SHA-256 over the size and the RGB pixels of every image, in order."""
    digest = hashlib.sha256()
    for image in images:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        digest.update(repr(rgb.size).encode())
        digest.update(rgb.tobytes())
    return digest.hexdigest()
