"""The elements of one long JSON list, one at a time: `[...]` or `{"samples": [...]}`.

`datasets.load_dataset("json", field="samples")` reads the whole file, derives one schema for all
samples and fails as a whole where two of them differ in a type or one is broken. Here the brackets
are counted, so that a broken sample costs that sample alone, and memory holds one sample.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pixelis.data_prep.importing.values import parse_json

LIST_KEYS = ("samples", "data")
# JSON of 16 million characters can become objects of 400 MB.
MAX_RECORD = 16_000_000
CHUNK = 1 << 18

_OUTSIDE = re.compile(r'["{}\[\],]')
_INSIDE = re.compile(r'["\\]')


@dataclass(frozen=True)
class Element:
    """The text of one element, or what is wrong with it."""

    text: str
    error: str = ""
    reason: str = "broken_json"


class _Source:
    """Text of a file by chunks; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")

    def read(self) -> str:
        """The next text; empty at the end alone."""
        while chunk := self.file.read(CHUNK):
            if text := self.decoder.decode(chunk):
                return text
        return self.decoder.decode(b"", final=True)


class Scanner:
    """Walks over the structural characters outside of strings."""

    def __init__(self, file: BinaryIO) -> None:
        """Take a file at its beginning."""
        self.source = _Source(file)
        self.text = ""
        self.position = 0
        self.start = 0  # of what is kept
        self.dropped = 0  # characters of the kept part that were too many

    def keep_from_here(self) -> None:
        """Forget everything before the position."""
        self.start, self.dropped = self.position, 0

    def kept(self) -> str:
        """What lies between the last `keep_from_here` and the last structural character."""
        return self.text[self.start : self.position - 1]

    def _more(self) -> bool:
        """Read on; what is kept stays, but never more than MAX_RECORD."""
        added = self.source.read()
        if not added:
            return False
        kept = self.text[self.start : self.position]
        if len(kept) > MAX_RECORD:
            self.dropped += len(kept)
            kept = ""
        self.text = kept + self.text[self.position :] + added
        self.start, self.position = 0, len(kept)
        return True

    def has_more(self) -> bool:
        """Whether anything but white space follows."""
        while not self.text[self.position :].strip():
            self.position = len(self.text)
            self.keep_from_here()
            if not self._more():
                return False
        return True

    def _find(self, pattern: re.Pattern[str]) -> str:
        while not (found := pattern.search(self.text, self.position)):
            self.position = len(self.text)
            if not self._more():
                return ""
        self.position = found.end()
        return found[0]

    def next(self) -> str:
        """The next of `{ } [ ] ,` outside of strings, or empty at the end."""
        while (mark := self._find(_OUTSIDE)) == '"':
            while (inner := self._find(_INSIDE)) == "\\":
                if self.position == len(self.text) and not self._more():
                    return ""
                self.position += 1
            if not inner:
                return ""
        return mark


def find_list(scanner: Scanner) -> str:
    """Move just behind the opening of the list; gives what holds it, or empty where none is.

    Only the outermost value is looked at: its own list, or the one under a key of LIST_KEYS.
    """
    mark = scanner.next()
    if mark == "[" and not scanner.kept().strip():
        scanner.keep_from_here()
        return "["
    if mark != "{" or scanner.kept().strip():
        return ""
    depth = 1
    scanner.keep_from_here()
    while depth and (mark := scanner.next()):
        if depth == 1 and mark == "[":
            key = scanner.kept().strip().removesuffix(":").strip()
            if key in {f'"{name}"' for name in LIST_KEYS}:
                scanner.keep_from_here()
                return "{"
        depth += (mark in "{[") - (mark in "}]")
        if depth == 1:
            scanner.keep_from_here()
    return ""


def list_elements(file: BinaryIO) -> Iterator[Element]:
    """The elements of the file's list, in order; broken ones come as errors in their place."""
    scanner = Scanner(file)
    holder = find_list(scanner)
    if not holder:
        yield Element("", "the file holds no list of records")
        return
    depth, count = 0, 0
    while mark := scanner.next():
        if depth == 0 and mark in ",]}":
            closing = mark != ","
            if scanner.kept().strip() or not (closing and count == 0):
                yield _element(scanner)
                count += 1
            scanner.keep_from_here()
            if closing:
                if mark == "}":
                    yield Element("", "the list of records is closed by }, not by ]")
                elif holder == "[" and scanner.has_more():
                    yield Element("", "text stands behind the list of records")
                return
            continue
        depth += (mark in "{[") - (mark in "}]")
    yield Element("", "the file ends before its list of records does; what follows is lost")


def _element(scanner: Scanner) -> Element:
    text = scanner.kept()
    size = len(text) + scanner.dropped
    if size > MAX_RECORD:
        return Element(
            "", f"a record may have {MAX_RECORD} characters, got {size}", reason="too_large"
        )
    return Element(text)


def parse_record(text: str) -> tuple[object, str]:
    """A record's JSON value and an empty text, or None and what is wrong."""
    try:
        text.encode("utf-8")
        return parse_json(text), ""
    except UnicodeEncodeError:
        return None, "the text is not UTF-8"
    except ValueError as error:
        return None, f"not JSON: {error!s:.120}"
