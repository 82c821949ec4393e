"""Load the images of a record: bytes, base64, `data:` addresses, or files inside the folder."""

import base64
import re
import stat
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from PIL import Image

from pixelis.data.images import MAX_BYTES, ImageError, load_image
from pixelis.data_prep.importing.values import RejectedError, check_text, read_list, show

MAX_IMAGES = 64
# All images of a record together: RGB of them takes 150 MB.
MAX_RECORD_PIXELS = 50_000_000

# Keys that hold an image where it is an object: those of parquet's images come first.
_HELD = ("bytes", "path", "url", "data", "base64")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FILE_ADDRESS = re.compile(r"file:(//(localhost(?=/))?|(?=/))", re.IGNORECASE)  # RFC 8089
# How the bytes of PNG, JPEG, WebP, GIF, BMP and TIFF begin in base64, and the least that is one.
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk", "SUkqA", "TU0AK")
_MIN_BASE64 = 40
_URL_SAFE = str.maketrans("-_", "+/")


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
    value = read_list(value)
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _load(reference: Any, folder: Path) -> Image.Image:
    if isinstance(reference, dict):
        given = [reference[name] for name in _HELD if reference.get(name) is not None]
        if not given:
            raise RejectedError("no_image", "an image has neither bytes nor a path")
        reference = given[0]
    if isinstance(reference, Image.Image):  # loaded before
        return reference
    name = "the embedded image"
    if isinstance(reference, bytes):
        encoded = reference
    elif isinstance(reference, str):
        text = reference.strip()
        if text[:5].lower() == "data:":
            encoded = _decode_address(text)
        elif _is_base64(text):
            encoded = _decode_base64(text, name)
        else:
            name = f"{reference!r:.120}"
            path = find_image(reference, folder)
            try:
                encoded = path.read_bytes()
            except OSError as error:
                raise RejectedError(
                    "unreadable_image", f"{name} cannot be read: {error.strerror}"
                ) from error
    else:
        raise RejectedError(
            "wrong_type", f"an image must be a path or bytes, got {show(reference)}"
        )
    try:
        return load_image(encoded)
    except ImageError as error:
        reason = "too_large" if error.too_large else "unreadable_image"
        raise RejectedError(reason, f"{name}: {error}") from error


def _is_base64(text: str) -> bool:
    """Return whether a text is an image's bytes in base64; a path of that length has a dot."""
    return len(text) >= _MIN_BASE64 and text.startswith(_BASE64_STARTS) and "." not in text


def _decode_address(address: str) -> bytes:
    """Decode a `data:` address (RFC 2397): base64 or percent-encoded bytes, of any media type."""
    name = "a data: image"
    head, _, body = address.partition(",")
    if "".join(head.split()).lower().endswith(";base64"):
        return _decode_base64(unquote(body), name)
    try:
        return unquote_to_bytes(body)
    except ValueError as error:
        raise RejectedError("unreadable_image", f"{name} is broken: {error}") from error


def _decode_base64(text: str, name: str) -> bytes:
    """Decode base64 with or without line ends and padding, in either alphabet."""
    compact = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError as error:
        raise RejectedError("unreadable_image", f"{name} is broken: {error}") from error


def find_image(name: Any, folder: Path) -> Path:
    r"""Return the file of an image in a folder, links followed.

    Its path is relative to the folder or to one above it, absolute, or a `file:` address; `\` may
    stand for `/`. The file itself must lie inside the folder.

    Raises:
        RejectedError: when the name is no text or an address, leads out of the folder, or has no
            regular file of at most MAX_BYTES.
    """
    if not check_text(name, "an image's path"):
        raise RejectedError("no_image", "an image's path is empty")
    shown = f"{name!r:.120}"
    names = [name]
    if local := _FILE_ADDRESS.match(name):
        rest = name[local.end() :]
        names = [rest, unquote(rest)]
    elif _ADDRESS.match(name):
        raise RejectedError(
            "remote_image", f"{shown} is an address; nothing is downloaded, name a local path"
        )
    names += [check_text(each, "an image's path").replace("\\", "/") for each in names]
    first: RejectedError | None = None
    for each in dict.fromkeys(names):
        for base in chain([folder], folder.absolute().parents):
            try:
                return _check_file(base / each, folder, shown)
            except RejectedError as error:
                first = first or error
    assert first is not None
    raise first


def _check_file(path: Path, folder: Path, shown: str) -> Path:
    try:
        # Links are followed before the comparison: the file itself must be inside the folder.
        path = path.resolve()
        if not path.is_relative_to(folder.resolve()):
            raise RejectedError("outside_folder", f"{shown} lies outside the folder of images")
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RejectedError("no_image", f"{shown} does not exist in the folder") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        # Not the whole error: it would repeat the path.
        why = getattr(error, "strerror", None) or "links in a circle"
        raise RejectedError("unreadable_image", f"{shown} cannot be read: {why}") from error
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait forever
        raise RejectedError("unreadable_image", f"{shown} is not a file")
    if status.st_size > MAX_BYTES:
        raise RejectedError(
            "too_large", f"{shown}: an image may have {MAX_BYTES} bytes, got {status.st_size}"
        )
    return path
