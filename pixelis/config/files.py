"""The files of configs/: those of the working folder, else the copies in the package."""

from pathlib import Path

from pixelis.errors import ConfigError
from pixelis.files import write_atomic

PACKAGE = Path(__file__).parent.parent
FOLDER = "configs"


def packaged_configs() -> Path:
    """Return the folder with the package's copies; in a checkout this is configs/ itself.

    setup.py puts the copy into the package when it is built.
    """
    inside = PACKAGE / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent / FOLDER


def find_config(path: str | Path) -> Path:
    """Return the path of a configuration file.

    A relative path below `configs/` that does not exist means the package's copy, so that every
    entry point works in any folder.
    """
    path = Path(path)
    if not path.exists() and path.parts[:1] == (FOLDER,):
        packaged = packaged_configs().joinpath(*path.parts[1:])
        return packaged if packaged.is_file() else path
    return path


def copy_configs(target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy the package's configuration files.

    Args:
        target: the folder for the copies; created if it is missing.
        overwrite: replace existing files with other content.

    Returns:
        The files that were written; an existing file with the same content is not rewritten.

    Raises:
        ConfigError: when a file exists with other content; then nothing is written.
    """
    source = packaged_configs()
    texts = {
        target / file.relative_to(source): file.read_text(encoding="utf-8")
        for file in sorted(source.rglob("*.yaml"))
        if not file.name.startswith("best")  # result of a search in a checkout
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
