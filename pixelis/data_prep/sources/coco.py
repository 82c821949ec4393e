"""The source `coco`: a folder of photographs with COCO's instances JSON.

The JSON is read and checked as a whole when the source is opened, and the images' headers with it.
What is kept is where in the JSON each record stands, 12 bytes each: 20 MB for the 860,000
annotations of `instances_train2017.json` (450 MB; twice that while it is read). Records and pixels
are read again when an image is drawn by lot.
"""

import json
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.data.images import ImageError, load_image
from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.importing.record import RejectedError, Rejection
from pixelis.data_prep.sources.coco_files import (
    CocoJson,
    find_image_folder,
    find_json,
    image_size,
    is_coco,
    locate,
)
from pixelis.data_prep.sources.coco_records import (
    ILLEGIBLE,
    LEFT_OUT,
    LEGIBLE,
    TASKS,
    THING,
    Mark,
    check_annotation,
    check_id,
    check_name,
    is_text,
    tasks_of,
)
from pixelis.data_prep.sources.coco_things import picture_of
from pixelis.errors import DataError

__all__ = ["CocoInstances", "is_coco"]

# Pictures kept; they hold no pixels, some kilobytes each.
MAX_KEPT = 256
FIRST_IMAGES = 100
MAX_DETAIL = 300


class _Listed(NamedTuple):
    """An image while the JSON is read; its size is None where it was turned away."""

    number: int
    size: tuple[int, int] | None


class CocoInstances:
    """Photographs with the truth of COCO annotations.

    Attributes:
        tasks: those that at least one image can be asked about.
        num_records: categories, images and annotations that the JSON lists.
        rejected: images and annotations left out, by reason (a key of `COCO_REASONS`).
        rejections: each of them, its `line` the record's id where that is a number and else its
            place in its list; left behind when the source is sent to a worker.
    """

    name = "coco"

    def __init__(self, path: Path, image_folder: Path | None = None) -> None:
        """Read and check a data set.

        Args:
            path: the JSON, or the folder that it is in.
            image_folder: where the images are; None looks near the JSON, inside of `path`.

        Raises:
            DataError: when it cannot be read, or no image is left to be asked about.
        """
        self.rejections: list[Rejection] = []
        self.num_records = 0
        self.file = find_json(path)
        self._stamp = _stamp(self.file)
        self._pictures: dict[int, AnnotatedImage] = {}
        content = CocoJson(self.file)
        names: list[Any] = []
        for entry in content.entries("images"):
            if len(names) < FIRST_IMAGES and isinstance(entry.data, dict):
                names.append(entry.data.get("file_name"))
        self.folder = find_image_folder(self.file, image_folder, names, source=path)
        self._categories = self._read_categories(content)
        self._image_spans: list[tuple[int, int]] = []
        images = self._read_images(content)
        suited = self._read_annotations(content, images)
        self.rejected = dict(Counter(found.reason for found in self.rejections).most_common())
        self._suited = {task: numbers for task, numbers in suited.items() if len(numbers)}
        self.tasks = tuple(self._suited)
        if not self.tasks:
            why = ", ".join(f"{reason} {count}" for reason, count in self.rejected.items())
            raise DataError(
                f"COCO file {self.file!s:.200} leaves no image to ask about; rejected: "
                f"{why or 'none'}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a worker gets."""
        return self.__dict__ | {"rejections": [], "_pictures": {}}

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """An image drawn by lot among those that the task can ask about.

        Raises:
            DataError: when there is none, or its files are no longer what they were.
        """
        if task not in self._suited:
            raise DataError(
                f"the source coco has no image for {task!r:.40}; tasks: {', '.join(self.tasks)}"
            )
        numbers = self._suited[task]
        number = int(numbers[rng.randrange(len(numbers))])
        picture = self._pictures.pop(number, None) or self._analyse(number)
        self._pictures[number] = picture  # at the end: the first is the one longest unused
        if len(self._pictures) > MAX_KEPT:
            del self._pictures[next(iter(self._pictures))]
        return picture

    def _reject(self, data: Any, line: int, error: RejectedError) -> None:
        given = data.get("id") if isinstance(data, dict) else None
        detail = error.detail.encode("utf-8", "backslashreplace").decode()[:MAX_DETAIL]
        place = given if type(given) is int else line
        self.rejections.append(Rejection(self.file.name, place, error.reason, detail))

    def _read_categories(self, content: CocoJson) -> dict[int | str, str]:
        names: dict[int | str, str] = {}
        for line, entry in enumerate(content.entries("categories"), 1):
            self.num_records += 1
            try:
                record = _record(entry.data)
                number = check_id(record.get("id"))
                if number in names:
                    raise RejectedError("duplicate_id", f"category {number!r:.60} is listed twice")
                names[number] = check_name(record.get("name"))
            except RejectedError as error:
                self._reject(entry.data, line, error)
        return names

    def _read_images(self, content: CocoJson) -> dict[int | str, _Listed]:
        images: dict[int | str, _Listed] = {}
        files: set[Path] = set()
        for line, entry in enumerate(content.entries("images"), 1):
            self.num_records += 1
            try:
                record = _record(entry.data)
                number = check_id(record.get("id"))
                if number in images:
                    raise RejectedError("duplicate_id", f"image {number!r:.60} is listed twice")
                images[number] = _Listed(-1, None)
                path = locate(record.get("file_name"), self.folder)
                if path in files:
                    raise RejectedError("duplicate_id", f"{path.name!r:.120} is listed twice")
                size = image_size(path)
                listed = (record.get("width", size[0]), record.get("height", size[1]))
                if listed != size:
                    raise RejectedError(
                        "size_differs", f"{path.name!r:.120} is {size}, listed as {listed!r:.60}"
                    )
            except RejectedError as error:
                self._reject(entry.data, line, error)
                continue
            files.add(path)
            images[number] = _Listed(len(self._image_spans), size)
            self._image_spans.append((entry.start, entry.length))
        return images

    def _read_annotations(
        self, content: CocoJson, images: dict[int | str, _Listed]
    ) -> dict[str, npt.NDArray[np.int32]]:
        """Check them all and keep where they stand; gives the images that suit each task."""
        owners, starts, lengths = array("i"), array("q"), array("i")
        codes: dict[tuple[str, str], int] = {}
        told = array("i")
        for line, entry in enumerate(content.entries("annotations"), 1):
            self.num_records += 1
            try:
                record = _record(entry.data)
                number = check_id(record.get("image_id"))
                if number not in images:
                    raise RejectedError("unknown_image", f"no image has the id {number!r:.60}")
                owner, size = images[number]
                if size is None:
                    raise RejectedError("rejected_image", f"image {number!r:.60} was turned away")
                mark, error = self._judge(record, size)
                owners.append(owner)
                starts.append(entry.start)
                lengths.append(entry.length)
                told.append(codes.setdefault((mark.name, mark.kind), len(codes)))
                if error:
                    raise error
            except RejectedError as error:
                self._reject(entry.data, line, error)
        order = np.argsort(np.asarray(owners), kind="stable")
        self._first = np.searchsorted(
            np.asarray(owners)[order], np.arange(len(self._image_spans) + 1)
        )
        self._starts, self._lengths = np.asarray(starts)[order], np.asarray(lengths)[order]
        marks, sorted_codes = list(codes), np.asarray(told)[order]
        suited: dict[str, array[int]] = {task: array("i") for task in TASKS}
        for image in range(len(self._image_spans)):
            held = sorted_codes[self._first[image] : self._first[image + 1]]
            for task in tasks_of([marks[code] for code in held]):
                suited[task].append(image)
        return {task: np.array(numbers, dtype=np.int32) for task, numbers in suited.items()}

    def _judge(
        self, record: dict[str, Any], size: tuple[int, int]
    ) -> tuple[Mark, RejectedError | None]:
        """What an annotation says, or what little is known of it and why it is turned away."""
        name = ""
        written = is_text(record)
        try:
            category = check_id(record.get("category_id"))
            if category not in self._categories:
                raise RejectedError("unknown_category", f"no category has the id {category!r:.60}")
            name = self._categories[category]
            annotation = check_annotation(record, size)
        except RejectedError as error:
            return Mark(name, ILLEGIBLE if written else LEFT_OUT, None), error
        if written and (annotation.crowd or not annotation.text):
            return Mark(name, ILLEGIBLE, annotation), None
        kind = LEFT_OUT if annotation.crowd else LEGIBLE if written else THING
        return Mark(name, kind, annotation), None

    def _records(self, spans: Iterable[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        """Records by where they stand in the JSON."""
        if _stamp(self.file) != self._stamp:
            raise DataError(f"COCO file {self.file!s:.200} changed since it was opened")
        with self.file.open("rb") as opened:
            for start, length in spans:
                opened.seek(int(start))
                yield json.loads(opened.read(int(length)).decode("utf-8"))

    def _analyse(self, number: int) -> AnnotatedImage:
        held = slice(self._first[number], self._first[number + 1])
        spans = zip(self._starts[held], self._lengths[held], strict=True)
        listed, *records = self._records([self._image_spans[number], *spans])
        try:
            path = locate(listed["file_name"], self.folder)
        except RejectedError as error:
            raise DataError(f"image folder {self.folder!s:.200}: {error.detail}") from error
        (image,) = _frames(path)
        marks, uncounted, taken = [], set(), []
        for record in records:
            name, kind, annotation = self._judge(record, image.size)[0]
            if kind in (LEFT_OUT, ILLEGIBLE):
                uncounted.add(name)
                taken += [annotation.box] if annotation else []
            elif annotation:
                marks.append((name, annotation))
        return picture_of(
            image,
            marks,
            draw=partial(_frames, path),
            uncounted=uncounted,
            taken=taken,
            origin=(("file", listed["file_name"]), ("image_id", listed["id"])),
        )


def _record(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise RejectedError("wrong_type", f"a record must be an object, got {data!r:.60}")
    return data


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _frames(path: Path) -> tuple[Image.Image]:
    """The image's pixels: read whenever they are used, so that nothing holds them."""
    try:
        return (load_image(path.read_bytes()),)
    except (OSError, ImageError) as error:
        raise DataError(f"image {path!s:.200} cannot be used any more: {error}") from error
