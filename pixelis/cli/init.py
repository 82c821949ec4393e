"""init: copy the configuration files into a folder, for editing."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.config import packaged_configs
from pixelis.errors import ConfigError
from pixelis.files import write_atomic

HELP = """usage: pixelis init [FOLDER] [--overwrite]

Copy the configuration files that the package carries to FOLDER/configs, for editing. Without them
every entry point reads the package's own.

FOLDER       where configs/ is to be [default: the working folder]
--overwrite  replace files that are there with other content

Example: pixelis init my_project"""


def main(argv: Sequence[str]) -> int:
    """Parse, copy, print what was written."""
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


def copy_configs(target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy the package's configuration files.

    Args:
        target: the folder of the copies; made where it is missing.
        overwrite: replace files that are there with other content.

    Returns:
        The files that were written; one that is there with the same content is left alone.

    Raises:
        ConfigError: when a file is there with other content; then nothing is written.
    """
    source = packaged_configs()
    texts = {
        target / file.relative_to(source): file.read_text(encoding="utf-8")
        for file in sorted(source.rglob("*.yaml"))
        if not file.name.startswith("best")  # what a search left in a checkout
    }
    existing = [path for path in texts if path.exists()]
    new = [
        path
        for path, text in texts.items()
        if path not in existing or path.read_text(encoding="utf-8") != text
    ]
    changed = [path for path in new if path in existing]
    if changed and not overwrite:
        others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ConfigError(f"{changed[0]}{others} has other content: --overwrite replaces it")
    for path in new:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, texts[path])
    return new


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
