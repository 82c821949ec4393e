"""Texts without what others must not read: the home folder, passwords, tokens."""

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A user's part of a URL, and a value after a word such as `password=`.
_USER_INFO = re.compile(r"(?<=://)[^/\s'\"]+@")
_QUERY = re.compile(
    r"(?i)([?&](?:password|passwd|pwd|[\w-]*token|api_?key|[\w-]*secret|sig|[\w-]*signature"
    r"|[\w-]*credential)=)[^&\s'\"]+"
)
# What is a secret wherever it stands: the value of an HTTP header, and the tokens of the services
# that a training meets, which begin with a mark of their own.
_HEADER = re.compile(r"(?i)\b((?:bearer|authorization: *basic)\s+)(?=\S*\d)[\w.~+/=-]{12,}")
_MARKED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}|dapi[a-f0-9]{32}|xox[abprs]-[\w-]{10,})"
)
# Environment variables whose values are secret by their names, where long enough to be one.
_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|passphrase|credential|cookie|connection_?string|database_url|webhook"
    r"|(?:^|_)(?:key\d*|pwd|pass|pat|dsn|auth|authorization|creds?|sas|sa_json)(?:$|_)"
    r"|apikey|accesskey|privatekey|service_?account"
)
_NOT_SECRET = {"PWD", "OLDPWD"}  # where the shell is
_MIN_SECRET = 8
_MIN_PASSWORD = 6
_HEAD = 8192  # bytes in which a file that is no text has a zero: images, safetensors, parquet
HIDDEN = "***"


def without_home(text: str) -> str:
    """Return the text with the home folder written as `~`: user names are not for others."""
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
    """Return a text or path, or all inside mappings (keys too) and lists, as others may read it.

    The home folder is `~`, URLs have no user and password, and the value of an environment
    variable that is called a token, secret, password or key is `***`, as is what stands behind
    `Bearer` or looks like a token of a well-known service.
    """
    return _public(value, _secrets(os.environ))


def copy_public(source: Path, target: Path) -> bool:
    """Write a text file as others may read it; line by line, however long it is.

    Returns:
        False, and nothing is written, where the file is no text or has nothing to hide.
    """
    with source.open("rb") as file:
        if b"\0" in file.read(_HEAD):
            return False
        file.seek(0)
        secrets = _secrets(os.environ)
        # Bytes that are no UTF-8 come through as they are.
        lines = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        if all(_public(line, secrets) == line for line in lines):
            return False
        lines.seek(0)
        with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            out.writelines(_public(line, secrets) for line in lines)
    return True


def cut(text: str, limit: int) -> str:
    """Return the text as others may read it, no longer than MLflow keeps, with a note if cut."""
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
        # A path to a file with a secret in it is none.
        if name in _NOT_SECRET or not _SECRET_NAME.search(name) or value.startswith("/"):
            continue
        # As it is, as it is inside JSON, and line by line: a key may have many.
        forms = (value, json.dumps(value)[1:-1], *value.splitlines())
        secrets |= {form for form in forms if len(form) >= least}
    return sorted(secrets, key=len, reverse=True)  # one may be the beginning of another
