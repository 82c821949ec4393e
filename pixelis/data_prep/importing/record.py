"""The input, a raw record of it, and why a record was rejected."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Every reason in `rejected.jsonl`, with its meaning.
REASONS = {
    "broken_json": "the line or the sample cannot be read",
    "too_large": "the record, an image of it or its steps exceed a fixed bound",
    "wrong_type": "a field has a type or a value that it may not have",
    "missing_text": "the question is missing or empty",
    "no_answer": "a question has no answer",
    "answer_differs": "answer and ground truth differ, so that the target could be wrong",
    "unjudged": "a negative, a trap or a correction does not say what is wrong in it",
    "no_image": "no image is named, or the file does not exist",
    "unreadable_image": "the image does not open",
    "image_count": "placeholders and images differ in number",
    "outside_folder": "the image lies outside the input's folder",
    "remote_image": "the image is an address; nothing is downloaded",
    "unknown_operation": "a call names no operation",
    "broken_call": "a call cannot be read",
    "failed_operation": "a call without a result cannot be run on the image",
    "wrong_turns": "the turns are in no order that makes a conversation",
    "characters": "a text holds control or private-use characters, or is not UTF-8",
    "markup": "a text of the assistant holds the tags that calls and answers are written with",
    "too_long": "the example has more tokens than max_length",
    "duplicate_id": "an earlier record has the same id",
}
MAX_DETAIL = 300

# Record format -> its name in errors and the report.
FORMATS = {
    "cota": "question, image, trajectory, answer",
    "messages": "messages with role and content",
    "conversations": "conversations with from and value",
}


@dataclass(frozen=True)
class Input:
    """The files of the user's input, and the format of their records.

    Attributes:
        path: the input's path, as the user gave it.
        folder: the folder that holds every image; image paths are relative to it.
        files: the data files, sorted.
        format: a key of FORMATS, the same for all files.
        containers: the container of each file: `lines`, `list` or `parquet`.
        detected: False if the user named the format.
    """

    path: Path
    folder: Path
    files: tuple[Path, ...]
    format: str
    containers: tuple[str, ...]
    detected: bool = True

    def describe(self) -> str:
        """Describe the input in one line."""
        kinds = {"lines": "JSON Lines", "list": "JSON", "parquet": "parquet"}
        held = ", ".join(sorted({kinds[container] for container in self.containers}))
        how = "detected" if self.detected else "as input_format says"
        return f"{len(self.files)} file(s) of {held}; format {self.format} ({how})"


@dataclass(frozen=True)
class Record:
    """One raw record.

    Attributes:
        file: path relative to the input's folder, or the input file's name.
        line: from 1: the line of JSON Lines, the element of a JSON list, or the row of parquet.
        data: the record, or None if it cannot be read.
        error: why it cannot be read.
        reason: the key of REASONS that fits the error.
        size: the record's size in bytes, for JSON in characters.
    """

    file: str
    line: int
    data: dict[str, Any] | None
    error: str = ""
    reason: str = "broken_json"
    size: int = 0


@dataclass(frozen=True)
class Rejection:
    """The reason why a record was rejected: a key of REASONS, and one line of detail."""

    file: str
    line: int
    reason: str
    detail: str


class RejectedError(Exception):
    """A broken rule, raised by the checks and readers of this package; `convert` catches it."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store a key of REASONS and the detail."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def reject(record: Record, reason: str, detail: str) -> Rejection:
    """Build the rejection of a record, with a short detail on one line."""
    # Through `backslashreplace` because a detail may quote what is not UTF-8.
    line = " ".join(detail.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return Rejection(record.file, record.line, reason, line[:MAX_DETAIL])


def count_by_reason(rejections: Iterable[Rejection]) -> dict[str, int]:
    """Count rejections by reason, the most frequent first."""
    return dict(Counter(rejection.reason for rejection in rejections).most_common())
