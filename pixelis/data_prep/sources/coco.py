"""The source `coco`: a folder of photographs with COCO's instances JSON.

When the source is opened, the complete JSON and the headers of the images are read and checked.
Only the position of each record in the JSON is kept, 12 bytes each: 20 MB for the 860,000
annotations of `instances_train2017.json` (450 MB; twice that while it is read). Records and pixels
are read again when an image is drawn.
"""

import json
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.data.images import ImageError, load_image
from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.importing.record import RejectedError, Rejection
from pixelis.data_prep.sources.coco_annotations import (
    ILLEGIBLE,
    LEFT_OUT,
    LEGIBLE,
    OBJECT,
    NamedAnnotation,
    annotate,
    check_annotation,
    check_name,
    is_text,
)
from pixelis.data_prep.sources.coco_files import (
    CocoJson,
    Entry,
    find_image_folder,
    find_json,
    image_size,
    is_coco,
    locate,
)
from pixelis.data_prep.tasks.object_counting import MAX_COUNT
from pixelis.errors import DataError

__all__ = ["CocoInstances", "is_coco"]

PAIR_TASKS = ("geometric_comparison", "spatial_reasoning", "relationship_detection")
TASKS = ("attribute_recognition", "object_counting", *PAIR_TASKS, "text_extraction")

# Annotated images kept in memory; without pixels they take some kilobytes each.
MAX_KEPT = 256
# The number of listed images that are searched near the JSON, to find their folder.
FIRST_IMAGES = 100
MAX_DETAIL = 300

Id = int | str
Size = tuple[int, int]


class CocoInstances:
    """Photographs with COCO's annotations.

    Attributes:
        tasks: the tasks for which at least one image is suitable.
        num_records: categories, images and annotations listed in the JSON.
        rejected: the number of rejected records by reason.
        rejections: the rejected records; `line` is the record's id if that is an integer, else its
            position in its list. Not sent to workers.
    """

    name = "coco"

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
        self._stamp = _stamp(self.file)
        self._annotated: dict[int, AnnotatedImage] = {}
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
        self.rejected = dict(Counter(each.reason for each in self.rejections).most_common())
        self._suited = {task: numbers for task, numbers in suited.items() if len(numbers)}
        self.tasks = tuple(self._suited)
        if not self.tasks:
            counts = ", ".join(f"{reason} {count}" for reason, count in self.rejected.items())
            raise DataError(
                f"COCO file {self.file!s:.200} leaves no image to ask about; rejected: "
                f"{counts or 'none'}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker, without rejections and cached images."""
        return self.__dict__ | {"rejections": [], "_annotated": {}}

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """Draw a random image among those that suit the task.

        Raises:
            DataError: when there is none, or its files have changed since.
        """
        if task not in self._suited:
            raise DataError(
                f"the source coco has no image for {task!r:.40}; tasks: {', '.join(self.tasks)}"
            )
        numbers = self._suited[task]
        number = int(numbers[rng.randrange(len(numbers))])
        annotated = self._annotated.pop(number, None) or self._annotate(number)
        self._annotated[number] = annotated  # at the end: the first is the least recently used
        if len(self._annotated) > MAX_KEPT:
            del self._annotated[next(iter(self._annotated))]
        return annotated

    def _check_each(
        self, entries: Iterable[Entry], check: Callable[[dict[str, Any], Entry], None]
    ) -> None:
        """Check every record of a list, and store the rejections."""
        for line, entry in enumerate(entries, 1):
            self.num_records += 1
            record = entry.data if isinstance(entry.data, dict) else {}
            try:
                if record is not entry.data:
                    raise RejectedError(
                        "wrong_type", f"a record must be an object, got {entry.data!r:.60}"
                    )
                check(record, entry)
            except RejectedError as error:
                number = record.get("id")
                detail = error.detail.encode("utf-8", "backslashreplace").decode()[:MAX_DETAIL]
                line = number if type(number) is int else line
                self.rejections.append(Rejection(self.file.name, line, error.reason, detail))

    def _read_categories(self, content: CocoJson) -> dict[Id, str]:
        names: dict[Id, str] = {}

        def check(record: dict[str, Any], entry: Entry) -> None:
            number = check_id(record.get("id"))
            if number in names:
                raise RejectedError("duplicate_id", f"category {number!r:.60} is listed twice")
            names[number] = check_name(record.get("name"))

        self._check_each(content.entries("categories"), check)
        return names

    def _read_images(self, content: CocoJson) -> dict[Id, tuple[int, Size] | None]:
        """Return the number and size of each image by its id; None where it is rejected."""
        images: dict[Id, tuple[int, Size] | None] = {}
        files: set[Path] = set()

        def check(record: dict[str, Any], entry: Entry) -> None:
            number = check_id(record.get("id"))
            if number in images:
                raise RejectedError("duplicate_id", f"image {number!r:.60} is listed twice")
            images[number] = None
            path = locate(record.get("file_name"), self.folder)
            if path in files:
                raise RejectedError("duplicate_id", f"{path.name!r:.120} is listed twice")
            size = image_size(path)
            listed = (record.get("width", size[0]), record.get("height", size[1]))
            if listed != size:
                raise RejectedError(
                    "size_differs", f"{path.name!r:.120} is {size}, listed as {listed!r:.60}"
                )
            files.add(path)
            images[number] = len(self._image_spans), size
            self._image_spans.append((entry.start, entry.length))

        self._check_each(content.entries("images"), check)
        return images

    def _read_annotations(
        self, content: CocoJson, images: dict[Id, tuple[int, Size] | None]
    ) -> dict[str, npt.NDArray[np.int32]]:
        """Check the annotations and store their positions; return each task's suitable images."""
        owners, starts, lengths, codes = array("i"), array("q"), array("i"), array("i")
        code_of: dict[tuple[str, str], int] = {}

        def check(record: dict[str, Any], entry: Entry) -> None:
            number = check_id(record.get("image_id"))
            if number not in images:
                raise RejectedError("unknown_image", f"no image has the id {number!r:.60}")
            image = images[number]
            if image is None:
                raise RejectedError("rejected_image", f"image {number!r:.60} was turned away")
            owner, size = image
            named, error = self._check_annotation(record, size)
            owners.append(owner)
            starts.append(entry.start)
            lengths.append(entry.length)
            codes.append(code_of.setdefault((named.name, named.use), len(code_of)))
            if error:
                raise error

        self._check_each(content.entries("annotations"), check)
        # Sorted by image, so that the annotations of one image are a slice.
        order = np.argsort(np.asarray(owners), kind="stable")
        numbers = np.arange(len(self._image_spans) + 1)
        self._first = np.searchsorted(np.asarray(owners)[order], numbers)
        self._starts, self._lengths = np.asarray(starts)[order], np.asarray(lengths)[order]
        names_and_uses, sorted_codes = list(code_of), np.asarray(codes)[order]
        suited: dict[str, array[int]] = {task: array("i") for task in TASKS}
        for image in range(len(self._image_spans)):
            of_image = sorted_codes[self._first[image] : self._first[image + 1]]
            for task in suited_tasks([names_and_uses[code] for code in of_image]):
                suited[task].append(image)
        return {task: np.array(numbers, dtype=np.int32) for task, numbers in suited.items()}

    def _check_annotation(
        self, record: dict[str, Any], size: Size
    ) -> tuple[NamedAnnotation, RejectedError | None]:
        """Return an annotation with its name and use, and the error if it is rejected."""
        name = ""
        written = is_text(record)
        try:
            category = check_id(record.get("category_id"))
            if category not in self._categories:
                raise RejectedError("unknown_category", f"no category has the id {category!r:.60}")
            name = self._categories[category]
            annotation = check_annotation(record, size)
        except RejectedError as error:
            return NamedAnnotation(name, ILLEGIBLE if written else LEFT_OUT, None), error
        if written:
            use = LEGIBLE if annotation.text and not annotation.crowd else ILLEGIBLE
        else:
            use = LEFT_OUT if annotation.crowd else OBJECT
        return NamedAnnotation(name, use, annotation), None

    def _read_records(self, spans: Iterable[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        """Yield the records at these positions of the JSON."""
        if _stamp(self.file) != self._stamp:
            raise DataError(f"COCO file {self.file!s:.200} changed since it was opened")
        with self.file.open("rb") as opened:
            for start, length in spans:
                opened.seek(int(start))
                yield json.loads(opened.read(int(length)).decode("utf-8"))

    def _annotate(self, number: int) -> AnnotatedImage:
        of_image = slice(self._first[number], self._first[number + 1])
        spans = zip(self._starts[of_image], self._lengths[of_image], strict=True)
        listed, *records = self._read_records([self._image_spans[number], *spans])
        try:
            path = locate(listed["file_name"], self.folder)
        except RejectedError as error:
            raise DataError(f"image folder {self.folder!s:.200}: {error.detail}") from error
        (image,) = _load(path)
        return annotate(
            image,
            [self._check_annotation(record, image.size)[0] for record in records],
            draw=partial(_load, path),
            origin=(("file", listed["file_name"]), ("image_id", listed["id"])),
        )


def check_id(value: Any) -> int | str:
    """Return an id.

    Raises:
        RejectedError: when it is neither an integer nor a text.
    """
    if type(value) is not int and not isinstance(value, str):
        raise RejectedError("wrong_type", f"an id must be an integer or a text, got {value!r:.60}")
    return value


def suited_tasks(names_and_uses: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the tasks that an image with such annotations suits."""
    incomplete = {name for name, use in names_and_uses if use in (LEFT_OUT, ILLEGIBLE)}
    counts = Counter(name for name, use in names_and_uses if use == OBJECT)
    if counts:
        yield "attribute_recognition"
    complete = {name: count for name, count in counts.items() if name not in incomplete}
    if any(count <= MAX_COUNT for count in complete.values()):
        yield "object_counting"
    if sum(count == 1 for count in complete.values()) > 1:
        yield from PAIR_TASKS
    uses = {use for _, use in names_and_uses}
    # A question may ask for all texts of the image, so every text must be annotated.
    if LEGIBLE in uses and ILLEGIBLE not in uses:
        yield "text_extraction"


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _load(path: Path) -> tuple[Image.Image]:
    """Read an image's pixels; they are read again at every use, to keep memory small."""
    try:
        return (load_image(path.read_bytes()),)
    except (OSError, ImageError) as error:
        raise DataError(f"image {path!s:.200} cannot be used any more: {error}") from error
