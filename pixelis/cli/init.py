"""init: copy the configuration files into a folder, for editing."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.config import copy_configs
from pixelis.errors import ConfigError

HELP = """usage: pixelis init [FOLDER] [--overwrite]

Copy the configuration files that the package carries to FOLDER/configs, for editing. Without them
every entry point reads the package's own.

FOLDER       where configs/ is to be [default: the working folder]
--overwrite  replace files that are there with other content

Example: pixelis init my_project"""


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, copy the files, and print their paths."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
        return 0
    options = [word for word in argv if word.startswith("-")]
    folders = [word for word in argv if not word.startswith("-")] or ["."]
    for option in options:
        if option != "--overwrite":
            name = option.lstrip("-").partition("=")[0]
            message = f"Unknown key {name!r} in the command line. Valid keys here: overwrite"
            raise ConfigError(message)
    if len(folders) > 1:
        raise ConfigError(f"init takes one folder, got {', '.join(folders)}")
    target = Path(folders[0]) / "configs"
    written = copy_configs(target, overwrite=bool(options))
    print(*map(str, written) if written else [f"{target} is up to date"], sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
