"""Texts for MLflow and the console, without the home folder, passwords and tokens."""

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelis.files import describe_write_error, is_disk_full

logger = logging.getLogger("pixelis.tracking")

# User and password in a URL, and the value after a key such as `password=`.
_USER_INFO = re.compile(r"(?<=://)[^/\s'\"]+@")
_QUERY = re.compile(
    r"(?i)([?&](?:password|passwd|pwd|[\w-]*token|api_?key|[\w-]*secret|sig|[\w-]*signature"
    r"|[\w-]*credential)=)[^&\s'\"]+"
)
# Secrets that can be recognised anywhere: the value of an HTTP header, and tokens of common
# services, which begin with a prefix of their own.
_HEADER = re.compile(r"(?i)\b((?:bearer|authorization: *basic)\s+)(?=\S*\d)[\w.~+/=-]{12,}")
_MARKED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}|dapi[a-f0-9]{32}|xox[abprs]-[\w-]{10,})"
)
# Names of environment variables whose values are secrets, if they are long enough.
_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|passphrase|credential|cookie|connection_?string|database_url|webhook"
    r"|(?:^|_)(?:key\d*|pwd|pass|pat|dsn|auth|authorization|creds?|sas|sa_json)(?:$|_)"
    r"|apikey|accesskey|privatekey|service_?account"
)
_NOT_SECRET = {"PWD", "OLDPWD"}  # folders of the shell
_MIN_SECRET = 8
_MIN_PASSWORD = 6
_HEAD = 8192  # a binary file has a zero in these first bytes: images, safetensors, parquet
HIDDEN = "***"


def without_home(text: str) -> str:
    """Return the text with the home folder written as `~`, which hides the user's name."""
    for home in dict.fromkeys((str(Path.home()), os.path.realpath(Path.home()))):
        if len(home) > 1 and home in text:
            text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-])", "~", text)
    return text


def without_secrets(text: str) -> str:
    """Return the text without tokens, and without the user and password of every URL in it."""
    text = _MARKED.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", text))
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{HIDDEN}", _USER_INFO.sub("", text))


def public(value: Any) -> Any:
    """Return a text or path without private parts; in mappings (keys too) and lists, all texts.

    The home folder becomes `~`, and URLs lose user and password. Secrets become `***`: the values
    of environment variables that are named a token, secret, password or key, a value after
    `Bearer`, and tokens of common services.
    """
    return _public(value, _secrets(os.environ))


def copy_public(source: Path, target: Path) -> bool:
    """Write a text file without its private parts; return False for any other file."""
    with source.open("rb") as file:
        if b"\0" in file.read(_HEAD):
            return False
    text = source.read_bytes().decode(errors="surrogateescape")
    cleaned = public(text)
    if cleaned == text:
        return False
    target.write_bytes(cleaned.encode(errors="surrogateescape"))
    return True


def cut(text: str, limit: int) -> str:
    """Return the text without private parts, cut to MLflow's limit with a note."""
    text = public(text)
    note = f" ... [cut: {len(text)} characters]"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def _public(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        text = without_secrets(without_home(value))
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return text
    if isinstance(value, Path):
        return _public(str(value), secrets)
    if isinstance(value, Mapping):
        return {_public(key, secrets): _public(each, secrets) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_public(each, secrets) for each in value]
    return value


def _secrets(environment: Mapping[str, str]) -> list[str]:
    secrets: set[str] = set()
    for name, value in environment.items():
        least = _MIN_PASSWORD if "passw" in name.lower() else _MIN_SECRET
        # The path of a file with a secret is not a secret itself.
        if name in _NOT_SECRET or not _SECRET_NAME.search(name) or value.startswith("/"):
            continue
        # The value itself, its form inside JSON, and each of its lines: a key may have many.
        forms = (value, json.dumps(value)[1:-1], *value.splitlines())
        secrets |= {form for form in forms if len(form) >= least}
    return sorted(secrets, key=len, reverse=True)  # longest first: one may begin another


def first_line(error: BaseException) -> str:
    """Return the first line of an error; for a full disk, its path, needed and free space."""
    if isinstance(error, OSError) and error.filename2 and is_disk_full(error):  # of a copy
        source = Path(error.filename)
        needed = source.stat().st_size if source.is_file() else None
        error = describe_write_error(error, Path(error.filename2), needed)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class WarnOnce:
    """A logger that logs each kind of warning once, until its cause is over."""

    def __init__(self, *muted: str) -> None:
        """Set the kinds that are never logged."""
        self._logged = set(muted)

    def warn(self, kind: str, message: str) -> None:
        """Log a warning without private parts, unless one of its kind was logged before."""
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning("%s", public(message))

    def over(self, kind: str, message: str) -> None:
        """Log that the cause of a warning is over; after this it may be logged again."""
        self._logged.discard(kind)
        logger.warning("%s", public(message))
