"""Shell completion, by click: entry points, options, the choices of their values, and files."""

import typing
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import shell_complete

from pixelis.cli.arguments import ENTRY_POINTS
from pixelis.cli.console import FORMATS
from pixelis.config import CONFIG_FILES, kinds_of, walk_fields
from pixelis.curriculum import CurriculumConfig


def complete(variable: str, instruction: str) -> int:
    """Print a shell's script or the words at its cursor, as the variable's value tells.

    Returns:
        The exit code.
    """
    commands = [
        click.Command(name, params=list(_options(name)), short_help=entry.meaning)
        for name, entry in ENTRY_POINTS.items()
    ]
    return shell_complete(click.Group("pixelis", commands), {}, "pixelis", variable, instruction)


def _options(name: str) -> Iterator[click.Parameter]:
    """Yield the options of an entry point."""
    if not ENTRY_POINTS[name].files:  # such as init and sync, which take folders
        yield click.Argument(["folders"], nargs=-1, type=click.Path(file_okay=False))
    for option, path in ENTRY_POINTS[name].files.items():
        yield click.Option([f"--{option}"], type=click.Path())
        for key, field in walk_fields(CONFIG_FILES[path]):
            if key == "curriculum":
                for inner, rule in walk_fields(CurriculumConfig, "curriculum."):
                    yield _option(inner, rule)
            else:
                yield _option(key, field)
    yield click.Option(["--log-format"], type=click.Choice(FORMATS))
    for switch in ("--quiet", "--verbose", "--version"):
        yield click.Option([switch], is_flag=True)


def _option(key: str, field: Any) -> click.Option:
    """Return the option of a configuration's key."""
    kinds = kinds_of(field.annotation)
    kind: click.ParamType[Any] = click.STRING
    choices = [c for k in kinds if typing.get_origin(k) is typing.Literal for c in k.__args__]
    if bool in kinds:
        choices = ["true", "false"]
    if choices:
        kind = click.Choice([str(choice) for choice in choices])
    elif str in kinds:  # it may be a path
        kind = click.Path()
    names = [f"--{key}", key.replace(".", "_")]
    return click.Option(names, type=kind, help=field.description)
