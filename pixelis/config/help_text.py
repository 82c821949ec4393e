"""The text of `--help`: every key of an entry point's files, with type, rule, meaning, default."""

import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixelis.config.settings import Setting, describe, flatten, load_config, without_none, words_of
from pixelis.errors import ConfigError

KIND_WORDS = {bool: "true|false", int: "INT", float: "FLOAT", str: "TEXT"}
COMMENTED_KEY = re.compile(r"^( *)(?:- )?(\w+):[^#]*(?:# (.*))?$")


def build_help(entry_point: str, description: str, files: Mapping[str, tuple[type, str]]) -> str:
    """The whole text; `files` holds, by option, a configuration class and its default file."""
    options = "".join(f" [--{option} FILE]" for option in files)
    lines = [f"usage: pixelis {entry_point}{options} [--section.key VALUE ...]", "", description]
    for option, (config_class, default) in files.items():
        lines += ["", f"--{option} FILE  a YAML file with these keys [default: {default}]"]
        lines += [f"  {line}" for line in _key_lines(config_class, Path(default))]
    lines += ["", "A key given here wins over its file, and the file over the [default]."]
    return "\n".join(lines)


def _key_lines(config_class: type[Any], file: Path) -> Iterator[str]:
    try:
        in_file = flatten(load_config(config_class, file))
        comments = read_comments(file)
    except ConfigError:  # help is also for those who have no usable file yet
        in_file, comments = {}, {}
    for one in describe(config_class):
        if typing.get_origin(one.kind) is not dict:
            yield _key_line(one, in_file)
            continue
        yield f"--{one.key}.KEY  {one.meaning}"
        for key, value in in_file.items():
            if key.startswith(f"{one.key}."):
                yield f"--{key}  {comments.get(key, '')} [in {file.name}: {_show(value)}]"


def _key_line(one: Setting, in_file: Mapping[str, Any]) -> str:
    default = json.dumps(one.default) if isinstance(one.default, tuple) else one.default
    values = f"default: {_show(default)}"
    if one.key in in_file and in_file[one.key] != default:
        values += f", in the file: {_show(in_file[one.key])}"
    rule = f"; {one.rule}" if one.rule else ""
    return f"--{one.key} {_kind_word(one.kind)}  {one.meaning}{rule} [{values}]"


def _kind_word(kind: Any) -> str:
    words = words_of(kind)
    kind, optional = without_none(kind)
    if typing.get_origin(kind) is tuple:
        return f"[{KIND_WORDS[typing.get_args(kind)[0]]}, ...]"
    return "|".join([KIND_WORDS[kind], *words, *(["null"] if optional else [])])


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_comments(file: Path) -> dict[str, str]:
    """The comments beside the keys of a file, by dotted key."""
    comments: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := COMMENTED_KEY.match(line):
            indent, name, comment = len(match[1]), match[2], match[3]
            parents = [(depth, parent) for depth, parent in parents if depth < indent]
            parents.append((indent, name))
            if comment:
                comments[".".join(parent for _, parent in parents)] = comment
    return comments
