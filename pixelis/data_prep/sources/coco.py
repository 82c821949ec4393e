"""The source `coco`: a folder of photographs with COCO's instances JSON.

When the source is opened, the complete JSON and the headers of the images are read and checked. It
keeps the checked annotations, half a kilobyte each; pixels are read when an image is drawn.
"""

import codecs
import json
import mmap
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import product
from os.path import realpath  # it allows circular links
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from pixelis.data.images import FORMATS, MAX_PIXELS, ImageError, load_image
from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.importing.files import check_inside
from pixelis.data_prep.importing.images import find_image
from pixelis.data_prep.importing.values import MAX_ID, RejectedError, Rejection, show
from pixelis.data_prep.sources.coco_annotations import (
    ILLEGIBLE,
    LEFT_OUT,
    LEGIBLE,
    OBJECT,
    Annotation,
    annotate,
    check_annotation,
    check_name,
    is_text,
)
from pixelis.data_prep.tasks.object_counting import MAX_COUNT
from pixelis.errors import DataError

PAIR_TASKS = ("geometric_comparison", "spatial_reasoning", "relationship_detection")
TASKS = ("attribute_recognition", "object_counting", *PAIR_TASKS, "text_extraction")
LISTS = ("images", "annotations", "categories")
_KEYS = [re.compile(rb'"%s"\s*:\s*\[' % name.encode()) for name in LISTS]
_END_OF_JPEG = b"\xff\xd9"
_MIRRORED_OR_HALF_TURNED = (2, 3, 4)
# Annotated images kept in memory; without pixels they take some kilobytes each.
MAX_KEPT = 256
# The number of listed images that are searched near the JSON, to find their folder.
FIRST_IMAGES = 100

Id = int | str


class Photo(NamedTuple):
    """A checked image: its id and file name in the JSON, width and height, annotations."""

    id: Id
    name: str
    size: tuple[int, int]
    annotations: list[Annotation]


class CocoInstances:
    """Photographs with COCO's annotations.

    Attributes:
        tasks: the tasks for which at least one image is suitable.
        num_records: categories, images and annotations listed in the JSON.
        rejections: the rejected records, with their ids; one without an id has its position in its
            list as `line`.
    """

    name = "coco"
    # Largest share of a task's examples with one answer: in photographs most things are black or
    # white, and most kinds are there once. A yes-or-no question cannot have less than half.
    max_answer_share = 0.5

    def __init__(self, path: Path, image_folder: Path | None = None) -> None:
        """Read and check a data set.

        Args:
            path: the JSON, or its folder.
            image_folder: the folder of the images; None: search near the JSON, inside of `path`.

        Raises:
            DataError: when the data cannot be read, or no image suits any task.
        """
        self.rejections: list[Rejection] = []
        self.num_records = 0
        self.file = find_json(path)
        content = read_json(self.file)
        self.folder = find_image_folder(self.file, image_folder, content["images"], source=path)
        categories: dict[Id, str] = {}
        photos: dict[Id, Photo | None] = {}
        self._check_each(content["categories"], partial(_add_category, categories))
        self._check_each(content["images"], partial(_add_photo, photos, self.folder, set()))
        self._check_each(content["annotations"], partial(_add_annotation, categories, photos))
        self._photos = [photo for photo in photos.values() if photo is not None]
        suited: dict[str, list[int]] = {task: [] for task in TASKS}
        for number, photo in enumerate(self._photos):
            for task in suited_tasks(photo.annotations):
                suited[task].append(number)
        self._suited = {task: numbers for task, numbers in suited.items() if numbers}
        self.tasks = tuple(self._suited)
        if not self.tasks:
            counts = Counter(rejection.reason for rejection in self.rejections).most_common()
            listed = ", ".join(f"{reason} {count}" for reason, count in counts)
            raise DataError(
                f"COCO file {self.file!s:.200} leaves no image to ask about; rejected: "
                f"{listed or 'none'}"
            )

    def _check_each(self, records: Sequence[Any], check: Callable[[dict[str, Any]], None]) -> None:
        """Check every record of a list, and store the rejections."""
        for number, record in enumerate(records, 1):
            self.num_records += 1
            try:
                if not isinstance(record, dict):
                    raise RejectedError(
                        "wrong_type", f"a record must be an object, got {show(record)}"
                    )
                check(record)
            except RejectedError as error:
                own = record.get("id") if isinstance(record, dict) else None
                if type(own) is int or (isinstance(own, str) and 0 < len(own) <= MAX_ID):
                    self.rejections.append(error.at(self.file.name, None, own))
                else:
                    self.rejections.append(error.at(self.file.name, number))

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """Draw a random image among those that suit the task.

        Raises:
            DataError: when there is none, or its file has changed since.
        """
        if task not in self._suited:
            raise DataError(
                f"the source coco has no image for {task!r:.40}; tasks: {', '.join(self.tasks)}"
            )
        numbers = self._suited[task]
        return _annotate(self, numbers[rng.randrange(len(numbers))])

    def load(self, number: int) -> Image.Image:
        """Read an image's pixels; they are read again at every use, to keep memory small."""
        photo = self._photos[number]
        try:
            image = load_image(find_image(photo.name, self.folder).read_bytes())
        except (OSError, ImageError, RejectedError) as error:
            raise DataError(f"image {photo.name!r:.200} cannot be used: {error}") from error
        if image.size != photo.size:
            raise DataError(f"image {photo.name!r:.200} changed since the data set was opened")
        return image


@lru_cache(maxsize=MAX_KEPT)
def _annotate(source: CocoInstances, number: int) -> AnnotatedImage:
    photo = source._photos[number]
    return annotate(
        source.load(number),
        photo.annotations,
        draw=lambda: (source.load(number),),
        origin=(("file", photo.name), ("image_id", photo.id)),
    )


def _add_category(names: dict[Id, str], record: dict[str, Any]) -> None:
    number = check_id(record.get("id"))
    if number in names:
        raise RejectedError("duplicate_id", f"category {number!r:.60} is listed twice")
    names[number] = check_name(record.get("name"))


def _add_photo(
    photos: dict[Id, Photo | None], folder: Path, files: set[Path], record: dict[str, Any]
) -> None:
    """Add an image by its id, or None if it is rejected."""
    number, name = check_id(record.get("id")), record.get("file_name")
    if number in photos:
        raise RejectedError("duplicate_id", f"image {number!r:.60} is listed twice")
    photos[number] = None
    path = find_image(name, folder)
    if path in files:
        raise RejectedError("duplicate_id", f"{path.name!r:.120} is listed twice")
    size = image_size(path)
    listed = (record.get("width", size[0]), record.get("height", size[1]))
    if listed != size:
        raise RejectedError(
            "size_differs", f"{path.name!r:.120} is {size}, listed as {show(listed)}"
        )
    files.add(path)
    photos[number] = Photo(number, str(name), size, [])


def _add_annotation(
    categories: dict[Id, str], photos: dict[Id, Photo | None], record: dict[str, Any]
) -> None:
    """Add an annotation to its image; of a rejected one its category and use remain."""
    number = check_id(record.get("image_id"))
    if number not in photos:
        raise RejectedError("unknown_image", f"no image has the id {number!r:.60}")
    photo = photos[number]
    if photo is None:
        raise RejectedError("rejected_image", f"image {number!r:.60} was rejected")
    added = Annotation("", ILLEGIBLE if is_text(record) else LEFT_OUT)
    try:
        category = check_id(record.get("category_id"))
        if category not in categories:
            raise RejectedError("unknown_category", f"no category has the id {category!r:.60}")
        added = added._replace(name=categories[category])
        added = check_annotation(record, added.name, photo.size)
    finally:
        photo.annotations.append(added)


def check_id(value: Any) -> Id:
    """Return an id.

    Raises:
        RejectedError: when it is neither an integer nor a text.
    """
    if type(value) is not int and not isinstance(value, str):
        raise RejectedError("wrong_type", f"an id must be an integer or a text, got {show(value)}")
    return value


def suited_tasks(annotations: Sequence[Annotation]) -> Iterator[str]:
    """Yield the tasks that an image with such annotations suits."""
    incomplete = {each.name for each in annotations if each.use in (LEFT_OUT, ILLEGIBLE)}
    counts = Counter(each.name for each in annotations if each.use == OBJECT)
    if counts:
        yield "attribute_recognition"
    complete = {name: count for name, count in counts.items() if name not in incomplete}
    if any(count <= MAX_COUNT for count in complete.values()):
        yield "object_counting"
    if sum(count == 1 for count in complete.values()) > 1:
        yield from PAIR_TASKS
    uses = {each.use for each in annotations}
    # A question may ask for all texts of the image, so every text must be annotated.
    if LEGIBLE in uses and ILLEGIBLE not in uses:
        yield "text_extraction"


def is_coco(path: Path) -> bool:
    """Return whether a path is COCO's JSON, or a folder with one in it or in `annotations`."""
    return bool(_json_files(path))


def find_json(path: Path) -> Path:
    """Return the instances JSON of a path: the file itself, or the one in the folder.

    Raises:
        DataError: when there is no JSON, more than one, or only a link to another folder.
    """
    if path.is_file():
        return path
    files = _json_files(path)
    if len(files) != 1:
        found = ", ".join(str(file.relative_to(path)) for file in files) or "none"
        raise DataError(
            f"input {path!s:.200} must hold one COCO JSON, in the folder or in its annotations/: a "
            f".json file with the lists {', '.join(LISTS)}; it holds {found:.600}"
        )
    check_inside(files[0], path)
    return files[0]


def _json_files(path: Path) -> list[Path]:
    files = [path]
    if not path.is_file():
        folders = (path, path / "annotations")
        files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    return [file for file in files if file.is_file() and _looks_like_coco(file)]


def _looks_like_coco(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            if not opened.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
                return False
            # Mapped, not read: the last key can come after 400 MB.
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return all(key.search(content) for key in _KEYS)
    except OSError:
        return False


def read_json(file: Path) -> dict[str, Any]:
    """Read a COCO file; 450 MB take 3 GB of memory until they are checked.

    Raises:
        DataError: when it is no JSON object with the three lists.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"COCO file {file!s:.200} cannot be read: {error!s:.200}") from error
    for name in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(f"COCO file {file!s:.200} has no list {name}")
    return content


def image_size(path: Path) -> tuple[int, int]:
    """Return the upright width and height of an image; refuse one that cannot be decoded.

    Of a JPEG only the header and the last bytes are read, in a twentieth of the time of decoding.

    Raises:
        RejectedError: when it cannot be opened, is too large, or its EXIF orientation makes it
            unclear whether its boxes refer to the upright image.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as opened:
                width, height = opened.size
                orientation = int(opened.getexif().get(ExifTags.Base.Orientation, 1))
                is_jpeg = opened.format == "JPEG"
            file.seek(-len(_END_OF_JPEG), 2)
            is_whole = is_jpeg and file.read() == _END_OF_JPEG
            if not is_whole or width * height > MAX_PIXELS:
                file.seek(0)
                load_image(file.read())
    except ImageError as error:
        reason = "too_large" if error.too_large else "unreadable_image"
        raise RejectedError(reason, f"{path.name!r:.120}: {error}") from error
    # Pillow's readers raise many types on broken bytes.
    except Exception as error:
        raise RejectedError("unreadable_image", f"{path.name!r:.120}: {error!s:.120}") from error
    is_turned = orientation in (5, 6, 7, 8)
    if orientation in _MIRRORED_OR_HALF_TURNED or (is_turned and width == height):
        raise RejectedError(
            "turned_image", f"{path.name!r:.120} has EXIF orientation {orientation}; save it as 1"
        )
    return (height, width) if is_turned else (width, height)


def find_image_folder(
    file: Path, given: Path | None, images: Sequence[Any], *, source: Path
) -> Path:
    """Return the folder of the images: the given one, or the one that holds the first listed image.

    Only folders inside of the user's path are tried: foreign data must not choose another folder to
    read.

    Args:
        file: the JSON.
        given: the user's image folder, or None.
        images: the records of the images; of the first ones those not found are skipped.
        source: the file or folder that the user named.

    Raises:
        DataError: when the given path is not a folder, or no image is found near the JSON.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"image_folder {given!s:.200} is not a folder")
        return given
    root = (source if source.is_dir() else source.parent).absolute()
    root = root.parent if root.name == "annotations" else root
    beside = file.absolute().parent
    names = ("", "images", file.stem.rpartition("_")[2])
    near = [folder / name for folder in (beside, root) for name in names]
    near = [folder for folder in near if Path(realpath(folder)).is_relative_to(realpath(root))]
    for image, folder in product(images[:FIRST_IMAGES], near):
        try:
            find_image(image.get("file_name") if isinstance(image, dict) else None, folder)
        except RejectedError:
            continue
        return folder
    tried = ", ".join(dict.fromkeys(map(str, near)))
    raise DataError(
        f"no image of COCO file {file!s:.200} is in {tried:.600}; name their folder (image_folder)"
    )
