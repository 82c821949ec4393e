"""The text of `--help` and the configuration reference, from the models and configs/."""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pixelis.config.load import find_config, flatten, load_config, packaged_configs
from pixelis.config.section import Section, kinds_of, limits_of
from pixelis.errors import ConfigError

WORDS = {bool: "true|false", int: "INT", float: "FLOAT", str: "TEXT", types.NoneType: "null"}
LONGEST_VALUE = 60  # longest default in characters; a list of stages is longer
Sections = Mapping[str, type[Section]]


class Row(NamedTuple):
    """One key as text for a user."""

    key: str
    kind: str
    limits: str
    default: str
    meaning: str


def build_help(
    entry_point: str,
    description: str,
    files: Mapping[str, tuple[type[Section], str]],
    open_sections: Sections,
    example: str = "",
) -> str:
    """Return the text of `--help`.

    Args:
        entry_point: the name of the entry point, as in `pixelis sft`.
        description: the purpose of the entry point.
        files: option, such as `--model` -> the class of the file, and the default file.
        open_sections: name -> class of a section that the file's class does not check itself.
        example: options that show what can be changed.
    """
    options = "".join(f" [--{option} FILE]" for option in files)
    lines = [f"usage: pixelis {entry_point}{options} [--section.key VALUE ...]", "", description]
    for option, (kind, default) in files.items():
        lines += ["", f"--{option} FILE  a YAML file with these keys [default: {default}]"]
        for section, rows in _group(kind, default, open_sections).items():
            lines += ["", f" {section}:"] if section else [""]
            for row in rows:
                limits = f"; {row.limits}" if row.limits else ""
                shown = f" [default: {row.default}]" if row.default else ""
                head = f"--{row.key} {row.kind}".strip()
                lines.append(f"  {head}  {row.meaning}{limits}{shown}")
    lines += ["", "A key given here wins over its file. Each [default] is that of the file."]
    return "\n".join([*lines, *([f"Example: pixelis {entry_point} {example}"] if example else [])])


def render_reference(files: Sections, open_sections: Sections) -> str:
    """Return the tables of the configuration reference as Markdown, with a heading per file.

    Args:
        files: path, such as "configs/plan.yaml" -> the class of the file.
        open_sections: as for `build_help`.
    """
    lines: list[str] = []
    described: dict[str, tuple[list[str], str]] = {}  # section -> its rows and the name of the file
    for path, kind in files.items():
        file = packaged_configs() / Path(path).name
        summary = (kind.__doc__ or "").strip().partition("\n")[0]
        lines += [f"## {file.name}", "", summary, ""]
        for section, rows in _group(kind, str(file), open_sections).items():
            keys = [row.key for row in rows]
            known, where = described.setdefault(section, (keys, file.name))
            lines += [f"### {file.stem}: {section}", ""] if section else []
            if known == keys and where != file.name:
                lines += [f"The keys of that section in {where}; the file sets other values.", ""]
                continue
            lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
            for row in rows:
                texts = row.key, f"{row.kind} {row.limits}".strip(), row.default
                cells = [*(f"`{text}`" if text else "" for text in texts), row.meaning]
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            lines.append("")
    return "\n".join(lines)


def _group(kind: type[Section], default: str, open_sections: Sections) -> dict[str, list[Row]]:
    """Return the rows of a file by section; keys outside of sections come first, under ""."""
    try:
        values = flatten(load_config(kind, find_config(default)))
    except ConfigError:  # --help must work even if the file is broken
        values = {}
    groups: dict[str, list[Row]] = {"": []}
    for row in _rows(kind, "", values, open_sections):
        groups.setdefault(row.key.rpartition(".")[0], []).append(row)
    return {section: rows for section, rows in groups.items() if rows}


def _rows(
    kind: type[Section], prefix: str, values: Mapping[str, Any], open_sections: Sections
) -> Iterator[Row]:
    for name, field in kind.model_fields.items():
        key, meaning = f"{prefix}{name}", field.description or ""
        inner = open_sections.get(key, field.annotation)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _rows(inner, f"{key}.", values, open_sections)
        elif typing.get_origin(inner) is dict:
            yield Row(f"{key}.KEY", "", "", "", meaning)
        else:
            default = field.get_default(call_default_factory=True, validated_data={})
            value = _show(values.get(key, default))
            yield Row(key, _kind_word(inner), limits_of(field), value, meaning)


def _kind_word(annotation: Any) -> str:
    """Return the words for a type, as in "INT|null" or "[TEXT, ...]"."""
    words = []
    for kind in kinds_of(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            words.append(f"{{{', '.join(kind.model_fields)}}}")
        elif typing.get_origin(kind) is tuple:
            words.append(f"[{_kind_word(typing.get_args(kind)[0])}, ...]")
        elif typing.get_origin(kind) is dict:
            words.append(f"{{NAME: {_kind_word(typing.get_args(kind)[1])}}}")
        else:
            words += typing.get_args(kind) or [WORDS[kind]]
    return "|".join(words)


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        value = [item.model_dump() if isinstance(item, Section) else item for item in value]
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
