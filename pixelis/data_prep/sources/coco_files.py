"""The files of a COCO data set: its JSON, read element by element, and its image folder."""

import json
import mmap
import re
import stat
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from pixelis.data.images import FORMATS, MAX_BYTES, MAX_PIXELS, ImageError, load_image
from pixelis.data_prep.importing.record import RejectedError
from pixelis.errors import DataError

LISTS = ("images", "annotations", "categories")
_KEYS = [re.compile(rb'"%s"\s*:\s*\[' % name.encode()) for name in LISTS]
_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = b"\xef\xbb\xbf"
_END_OF_JPEG = b"\xff\xd9"
_MIRRORED_OR_HALF_TURNED = (2, 3, 4)


class Entry(NamedTuple):
    """An element of one of the lists, and its position in the file (bytes)."""

    data: Any
    start: int
    length: int


def is_coco(path: Path) -> bool:
    """Return whether a path is COCO's JSON, or a folder with one in it or in `annotations`."""
    return _looks_like_coco(path) if path.is_file() else bool(_json_files(path))


def find_json(path: Path) -> Path:
    """Return the instances JSON of a path: the file itself, or the one in the folder.

    Raises:
        DataError: when there is no JSON, more than one, or only a link to another folder.
    """
    if path.is_file():
        return path
    files = _json_files(path)
    if not files:
        raise DataError(
            f"input {path!s:.200} holds no COCO JSON: a .json file with the lists "
            f"{', '.join(LISTS)}, in the folder or in its annotations/"
        )
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in files)
        raise DataError(f"input {path!s:.200} holds several COCO files; name one of {names:.600}")
    if not _is_inside(files[0], path):
        raise DataError(
            f"{files[0]!s:.200} is a link that leaves the folder {path!s:.200}; name the file"
        )
    return files[0]


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or lies in it, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # RuntimeError: circular links
        return False


def _json_files(folder: Path) -> list[Path]:
    folders = (folder, folder / "annotations")
    files = [file for each in folders for file in sorted(each.glob("*.json"))]
    return [file for file in files if file.is_file() and _looks_like_coco(file)]


def _looks_like_coco(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(1024).removeprefix(_BOM).lstrip()
            if not head.startswith(b"{"):
                return False
            # Mapped, not read: the last key can come after 400 MB.
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return all(key.search(content) for key in _KEYS)
    except OSError:
        return False


class CocoJson:
    """The text of a COCO file, and the position of every element of its three lists.

    One element is decoded at a time, so that memory is at most twice the file's size; `json.load`
    takes ten times that, and ijson gives no positions.
    """

    def __init__(self, file: Path) -> None:
        """Read a file.

        Raises:
            DataError: when it is no JSON object with the three lists.
        """
        self.file = file
        try:
            encoded = file.read_bytes()
            encoded.decode("utf-8")  # only to check it
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"COCO file {file!s:.200} cannot be read: {error!s:.200}") from error
        # One character per byte, so that positions in the text are positions in the file.
        self._text = encoded.decode("latin-1")
        self._decoder = json.JSONDecoder()
        self._spans = self._find_elements(len(_BOM) if encoded.startswith(_BOM) else 0)

    def entries(self, name: str) -> Iterator[Entry]:
        """Yield the elements of a list, in order."""
        spans = iter(self._spans[name])
        for start, end in zip(spans, spans, strict=True):
            data = json.loads(self._text[start:end].encode("latin-1"))
            yield Entry(data, start, end - start)

    def _find_elements(self, start: int) -> dict[str, "array[int]"]:
        """Return the start and end positions of the elements of each list, in turn."""
        spans: dict[str, array[int]] = {}
        mark, position = self._expect("{", start)
        while mark != "}":
            key, position = self._decode(position)
            _, position = self._expect(":", position)
            position = self._skip_space(position)
            if key in LISTS and self._text.startswith("[", position):
                spans[key], position = self._find_spans(position + 1)
            else:
                _, position = self._decode(position)
            mark, position = self._expect(",}", position)
        missing = [name for name in LISTS if name not in spans]
        if missing:
            raise DataError(f"COCO file {self.file!s:.200} has no list {', '.join(missing)}")
        return spans

    def _find_spans(self, position: int) -> tuple["array[int]", int]:
        """Return the spans of a list's elements and the list's end; start after its bracket."""
        spans = array("q")
        first = self._skip_space(position)
        if self._text.startswith("]", first):
            return spans, first + 1
        mark = ","
        while mark == ",":
            begin = self._skip_space(position)
            _, end = self._decode(begin)
            spans.extend((begin, end))
            mark, position = self._expect(",]", end)
        return spans, position

    def _error(self, text: str, position: int) -> DataError:
        return DataError(f"COCO file {self.file!s:.200}: {text:.200} (character {position})")

    def _decode(self, position: int) -> tuple[Any, int]:
        position = self._skip_space(position)
        try:
            return self._decoder.raw_decode(self._text, position)
        except (ValueError, RecursionError) as error:
            raise self._error(f"not JSON: {error}", position) from error

    def _skip_space(self, position: int) -> int:
        space = _SPACE.match(self._text, position)
        return space.end() if space else position

    def _expect(self, marks: str, position: int) -> tuple[str, int]:
        position = self._skip_space(position)
        mark = self._text[position : position + 1]
        if not mark or mark not in marks:
            raise self._error(f"expected one of {' '.join(marks)}, got {mark!r}", position)
        return mark, position + 1


def locate(name: Any, folder: Path) -> Path:
    """Return the file of an image, links followed.

    Raises:
        RejectedError: when the name is not a text, leads out of the folder, or has no file.
    """
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise RejectedError("wrong_type", f"file_name must be printable text, got {name!r:.80}")
    inside = folder.resolve()
    try:
        path = (inside / name).resolve()
        if not path.is_relative_to(inside):
            raise RejectedError("outside_folder", f"{name!r:.120} lies outside the image folder")
        status = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        raise RejectedError("no_image", f"{name!r:.120} is not in the image folder") from error
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait forever
        raise RejectedError("unreadable_image", f"{name!r:.120} is not a file")
    if status.st_size > MAX_BYTES:
        raise RejectedError(
            "too_large", f"{name!r:.120} may have {MAX_BYTES} bytes, got {status.st_size}"
        )
    return path


def image_size(path: Path) -> tuple[int, int]:
    """Return the upright width and height of an image; refuse one that cannot be decoded.

    Of a JPEG only the header and the last bytes are read, in a twentieth of the time of decoding.

    Raises:
        RejectedError: when it cannot be opened, is too large, or its EXIF orientation makes it
            unclear whether its boxes refer to the upright image.
    """
    try:
        size, raw_size, orientation = _read_size(path)
    except ImageError as error:
        reason = "too_large" if error.too_large else "unreadable_image"
        raise RejectedError(reason, f"{path.name!r:.120}: {error}") from error
    # Pillow's readers raise many types on broken bytes.
    except Exception as error:
        raise RejectedError("unreadable_image", f"{path.name!r:.120}: {error!s:.120}") from error
    if orientation in _MIRRORED_OR_HALF_TURNED or (orientation > 4 and size[0] == size[1]):
        raise RejectedError(
            "turned_image", f"{path.name!r:.120} has EXIF orientation {orientation}; save it as 1"
        )
    return raw_size if orientation < 5 else (raw_size[1], raw_size[0])


def _read_size(path: Path) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return the upright size, the size as stored, and the EXIF orientation."""
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"an image may have at most {MAX_PIXELS} pixels, got {width} x {height}",
                    too_large=True,
                )
            orientation = int(opened.getexif().get(ExifTags.Base.Orientation, 1))
            if opened.format == "JPEG":
                file.seek(-len(_END_OF_JPEG), 2)
                if file.read() == _END_OF_JPEG:
                    return (width, height), (width, height), orientation
        file.seek(0)
        return load_image(file.read()).size, (width, height), orientation


def find_image_folder(
    file: Path, given: Path | None, names: list[Any], *, source: Path | None = None
) -> Path:
    """Return the folder of the images: the given one, or the one that holds the first listed image.

    Only folders inside of the user's path are tried: foreign data must not choose another folder to
    read.

    Args:
        file: the JSON.
        given: the user's image folder, or None.
        names: file names of the first images; those not found are skipped.
        source: the file or folder that the user named; None: the JSON.

    Raises:
        DataError: when the given path is not a folder, or no image is found near the JSON.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"image_folder {given!s:.200} is not a folder")
        return given
    beside = file.parent
    above = beside.parent
    suffix = file.stem.rpartition("_")[2]
    root = _root(file if source is None else source)
    near = (beside, above, above / "images", above / suffix, beside / "images", beside / suffix)
    candidates = [folder for folder in near if _is_inside(folder, root)]
    for name in names:
        for folder in candidates:
            try:
                locate(name, folder)
            except RejectedError:
                continue
            return folder
    tried = ", ".join(map(str, candidates))
    raise DataError(
        f"no image of COCO file {file!s:.200} is in {tried:.600}; name their folder (image_folder)"
    )


def _root(source: Path) -> Path:
    """Return the folder to search for images: the named one, or the parent of `annotations`."""
    folder = (source if source.is_dir() else source.parent).absolute()
    return folder.parent if folder.name == "annotations" else folder
