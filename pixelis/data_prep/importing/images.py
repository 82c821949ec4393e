"""Load the images of a record: bytes, `data:` addresses, or files inside the folder."""

import base64
import binascii
import re
import stat
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.images import MAX_BYTES, ImageError, load_image
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_text, show

MAX_IMAGES = 64
# All images of a record together: RGB of them takes 150 MB.
MAX_RECORD_PIXELS = 50_000_000

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def load_images(references: list[Any], folder: Path) -> list[Image.Image]:
    """Load the images of references, in order."""
    if len(references) > MAX_IMAGES:
        raise RejectedError(
            "too_large", f"a record may have {MAX_IMAGES} images, got {len(references)}"
        )
    images: list[Image.Image] = []
    pixels = 0
    for reference in references:
        image = _load(reference, folder)
        pixels += image.width * image.height
        if pixels > MAX_RECORD_PIXELS:
            raise RejectedError(
                "too_large", f"a record's images may have {MAX_RECORD_PIXELS} pixels together"
            )
        images.append(image)
    return images


def as_references(value: Any) -> list[Any]:
    """Return a field's references; the field may be null, one reference or a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _load(reference: Any, folder: Path) -> Image.Image:
    name = "the embedded image"
    if isinstance(reference, dict):
        path, held = reference.get("path"), reference.get("bytes")
        if held is None and path is None:
            raise RejectedError("no_image", "an image has neither bytes nor a path")
        if held is not None and not isinstance(held, bytes):
            raise RejectedError("wrong_type", f"an image's bytes must be bytes, got {show(held)}")
        reference = path if held is None else held
    if isinstance(reference, str):
        if reference.startswith("data:"):
            encoded = _decode_address(reference)
        else:
            name = show(reference, 120)
            encoded = _read(reference, folder)
    elif isinstance(reference, bytes):
        encoded = reference
    else:
        raise RejectedError(
            "wrong_type", f"an image must be a path or bytes, got {show(reference)}"
        )
    try:
        return load_image(encoded)
    except ImageError as error:
        reason = "too_large" if error.too_large else "unreadable_image"
        raise RejectedError(reason, f"{name}: {error}") from error


def _decode_address(address: str) -> bytes:
    head, _, body = address.partition(",")
    if not head.endswith(";base64"):
        raise RejectedError("unreadable_image", f"a data: image must be base64, got {show(head)}")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RejectedError("unreadable_image", f"a data: image is broken: {error}") from error


def _read(reference: str, folder: Path) -> bytes:
    shown = show(reference, 120)
    if not check_text(reference, "an image's path"):
        raise RejectedError("no_image", "an image's path is empty")
    if _ADDRESS.match(reference):
        raise RejectedError(
            "remote_image", f"{shown} is an address; nothing is downloaded, name a local path"
        )
    inside = folder.resolve()
    try:
        # Links are followed before the comparison: the file itself must be inside the folder.
        path = (inside / reference).resolve()
        if not path.is_relative_to(inside):
            raise RejectedError("outside_folder", f"{shown} lies outside the folder of the input")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait forever
            raise RejectedError("unreadable_image", f"{shown} is not a file")
        if status.st_size > MAX_BYTES:
            raise RejectedError(
                "too_large", f"{shown}: an image may have {MAX_BYTES} bytes, got {status.st_size}"
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RejectedError("no_image", f"{shown} does not exist in the folder") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise RejectedError("unreadable_image", f"{shown} cannot be read: {error}") from error
