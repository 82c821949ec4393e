"""The files of a COCO data set: its JSON, read entry by entry, and the images inside one folder."""

import json
import mmap
import re
import stat
import warnings
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
    """An element of one of the lists, and which bytes of the file it is."""

    data: Any
    start: int
    length: int


def is_coco(path: Path) -> bool:
    """Whether a file is COCO's JSON, or a folder (or its `annotations`) holds some: by content."""
    return _looks_like_coco(path) if path.is_file() else bool(_json_files(path))


def find_json(path: Path) -> Path:
    """The instances JSON that a path is or holds.

    Raises:
        DataError: when there is none, several to choose from, or a link to one elsewhere.
    """
    if path.is_file():
        return path
    found = _json_files(path)
    if not found:
        raise DataError(
            f"input {path!s:.200} holds no COCO JSON: a .json file with the lists "
            f"{', '.join(LISTS)}, in the folder or in its annotations/"
        )
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found)
        raise DataError(f"input {path!s:.200} holds several COCO files; name one of {names:.600}")
    if not _is_inside(found[0], path):
        raise DataError(
            f"{found[0]!s:.200} is a link that leaves the folder {path!s:.200}; name the file"
        )
    return found[0]


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder or is it, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False


def _json_files(folder: Path) -> list[Path]:
    places = (folder, folder / "annotations")
    files = [file for place in places for file in sorted(place.glob("*.json"))]
    return [file for file in files if file.is_file() and _looks_like_coco(file)]


def _looks_like_coco(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(1024).removeprefix(_BOM).lstrip()
            if not head.startswith(b"{"):
                return False
            # Searched where the file lies: the last key can stand behind 400 MB.
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return all(key.search(content) for key in _KEYS)
    except OSError:
        return False


class CocoJson:
    """The text of a COCO file, and where its three lists begin.

    One entry is decoded at a time: memory is that of the text, twice the file's size at its most,
    where `json.load` takes ten times.
    """

    def __init__(self, file: Path) -> None:
        """Read a file.

        Raises:
            DataError: when it is no JSON object with the three lists.
        """
        self.file = file
        try:
            encoded = file.read_bytes()
            self._skipped = len(_BOM) if encoded.startswith(_BOM) else 0
            self._text = encoded.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"COCO file {file!s:.200} cannot be read: {error!s:.200}") from error
        self._decoder = json.JSONDecoder()
        self._starts = self._find_lists()

    def entries(self, name: str) -> Iterator[Entry]:
        """The elements of a list, in order."""
        start = self._starts[name]
        # Bytes are counted on from element to element: a text that is not ASCII has no other way.
        passed, passed_bytes = start, self._skipped + len(self._text[:start].encode())
        for data, begin, end in self._elements(start):
            first = passed_bytes + len(self._text[passed:begin].encode())
            length = len(self._text[begin:end].encode())
            passed, passed_bytes = end, first + length
            yield Entry(data, first, length)

    def _error(self, text: str, position: int) -> DataError:
        return DataError(f"COCO file {self.file!s:.200}: {text:.200} (character {position})")

    def _decode(self, position: int) -> tuple[Any, int]:
        position = self._skip(position)
        try:
            return self._decoder.raw_decode(self._text, position)
        except (ValueError, RecursionError) as error:
            raise self._error(f"not JSON: {error}", position) from error

    def _skip(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        return found.end() if found else position

    def _expect(self, marks: str, position: int) -> tuple[str, int]:
        position = self._skip(position)
        mark = self._text[position : position + 1]
        if not mark or mark not in marks:
            raise self._error(f"expected one of {' '.join(marks)}, got {mark!r}", position)
        return mark, position + 1

    def _elements(self, position: int) -> Iterator[tuple[Any, int, int]]:
        """Value, begin and end of each element of the list that opens at a position."""
        _, position = self._expect("[", position)
        if self._text.startswith("]", self._skip(position)):
            return
        mark = ","
        while mark == ",":
            begin = self._skip(position)
            data, end = self._decode(begin)
            yield data, begin, end
            mark, position = self._expect(",]", end)

    def _list_end(self, position: int) -> int:
        end = position + 1
        for _, _, last in self._elements(position):
            end = last
        return self._expect("]", end)[1]

    def _find_lists(self) -> dict[str, int]:
        starts: dict[str, int] = {}
        mark, position = self._expect("{", 0)
        while mark != "}":
            key, position = self._decode(position)
            _, position = self._expect(":", position)
            position = self._skip(position)
            if key in LISTS and self._text.startswith("[", position):
                starts[key] = position
                position = self._list_end(position)
            else:
                _, position = self._decode(position)
            mark, position = self._expect(",}", position)
        missing = [name for name in LISTS if name not in starts]
        if missing:
            raise DataError(f"COCO file {self.file!s:.200} has no list {', '.join(missing)}")
        return starts


def locate(name: Any, folder: Path) -> Path:
    """The file of an image, links followed.

    Raises:
        RejectedError: when the name is none, leads out of the folder, or no file has it.
    """
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise RejectedError("wrong_type", f"file_name must be printable text, got {name!r:.80}")
    inside = folder.resolve()
    try:
        path = (inside / name).resolve()
        if not path.is_relative_to(inside):
            raise RejectedError("outside_folder", f"{name!r:.120} lies outside the image folder")
        found = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise RejectedError("no_image", f"{name!r:.120} is not in the image folder") from error
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
        raise RejectedError("unreadable_image", f"{name!r:.120} is not a file")
    if found.st_size > MAX_BYTES:
        raise RejectedError(
            "too_large", f"{name!r:.120} may have {MAX_BYTES} bytes, got {found.st_size}"
        )
    return path


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image that opens.

    A JPEG's header and last bytes are looked at, which takes a twentieth of decoding it.

    Raises:
        RejectedError: when it does not open, is too large, or EXIF turns it so that nobody can tell
            which way its boxes count.
    """
    try:
        size, raw_size, orientation = _look_at(path)
    except ImageError as error:
        reason = "too_large" if error.too_large else "unreadable_image"
        raise RejectedError(reason, f"{path.name!r:.120}: {error}") from error
    # Pillow's readers raise whatever broken bytes lead them to.
    except Exception as error:
        raise RejectedError("unreadable_image", f"{path.name!r:.120}: {error!s:.120}") from error
    if orientation in _MIRRORED_OR_HALF_TURNED or (orientation > 4 and size[0] == size[1]):
        raise RejectedError(
            "turned_image", f"{path.name!r:.120} has EXIF orientation {orientation}; save it as 1"
        )
    return raw_size if orientation < 5 else (raw_size[1], raw_size[0])


def _look_at(path: Path) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Upright size, size as stored, EXIF orientation."""
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
    """The folder of the images: the one that is given, or where the first listed image lies.

    Nothing is looked for outside of what the user named: a folder of data that came from elsewhere
    may not choose which other folder is read.

    Args:
        file: the JSON.
        given: by the user.
        names: file names of the first images; those that lie nowhere are passed over.
        source: the file or folder that the user named; None: the JSON.

    Raises:
        DataError: when the given folder is none, or no image is found near the JSON.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"image_folder {given!s:.200} is not a folder")
        return given
    beside = file.parent
    above = beside.parent
    suffix = file.stem.rpartition("_")[2]
    root = _root(file if source is None else source)
    near = (
        *(beside, above, above / "images", above / suffix),
        *(beside / "images", beside / suffix),
    )
    candidates = [folder for folder in near if _is_inside(folder, root)]
    for name in names:
        for folder in candidates:
            try:
                locate(name, folder)
            except RejectedError:
                continue
            return folder
    looked = ", ".join(map(str, candidates))
    raise DataError(
        f"no image of COCO file {file!s:.200} is in {looked:.600}; name their folder (image_folder)"
    )


def _root(source: Path) -> Path:
    """The folder that images may be in: the named one; COCO's own `annotations` has them beside."""
    folder = (source if source.is_dir() else source.parent).absolute()
    return folder.parent if folder.name == "annotations" else folder
