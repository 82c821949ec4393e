"""Load the images of a record: bytes, `data:` addresses, or files inside the folder."""

import base64
import re
import stat
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.images import MAX_BYTES, ImageError, load_image
from pixelis.data_prep.importing.values import RejectedError, check_text, show

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
    for reference in references:
        images.append(_load(reference, folder))
        if sum(image.width * image.height for image in images) > MAX_RECORD_PIXELS:
            raise RejectedError(
                "too_large", f"a record's images may have {MAX_RECORD_PIXELS} pixels together"
            )
    return images


def as_references(value: Any) -> list[Any]:
    """Return a field's references; the field may be null, one reference or a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _load(reference: Any, folder: Path) -> Image.Image:
    if isinstance(reference, dict):
        held = reference.get("bytes")
        reference = reference.get("path") if held is None else held
        if reference is None:
            raise RejectedError("no_image", "an image has neither bytes nor a path")
    if isinstance(reference, Image.Image):  # loaded before
        return reference
    name = "the embedded image"
    if isinstance(reference, bytes):
        encoded = reference
    elif isinstance(reference, str) and reference.startswith("data:"):
        encoded = _decode_address(reference)
    elif isinstance(reference, str):
        name = f"{reference!r:.120}"
        path = find_image(reference, folder)
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise RejectedError("unreadable_image", f"{name} cannot be read: {error}") from error
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
    except ValueError as error:
        raise RejectedError("unreadable_image", f"a data: image is broken: {error}") from error


def find_image(name: Any, folder: Path) -> Path:
    """Return the file of an image in a folder, links followed.

    Raises:
        RejectedError: when the name is no text or an address, leads out of the folder, or has no
            regular file of at most MAX_BYTES.
    """
    if not check_text(name, "an image's path"):
        raise RejectedError("no_image", "an image's path is empty")
    shown = f"{name!r:.120}"
    if _ADDRESS.match(name):
        raise RejectedError(
            "remote_image", f"{shown} is an address; nothing is downloaded, name a local path"
        )
    try:
        inside = folder.resolve()
        # Links are followed before the comparison: the file itself must be inside the folder.
        path: Path = (inside / name).resolve()
        if not path.is_relative_to(inside):
            raise RejectedError("outside_folder", f"{shown} lies outside the folder of images")
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RejectedError("no_image", f"{shown} does not exist in the folder") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise RejectedError("unreadable_image", f"{shown} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait forever
        raise RejectedError("unreadable_image", f"{shown} is not a file")
    if status.st_size > MAX_BYTES:
        raise RejectedError(
            "too_large", f"{shown}: an image may have {MAX_BYTES} bytes, got {status.st_size}"
        )
    return path
