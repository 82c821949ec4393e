"""The files of configs/: the working folder's own, else those that the package carries."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
FOLDER = "configs"


def packaged_configs() -> Path:
    """Return the folder with the package's copy; in a checkout it is the checkout's own configs/.

    setup.py puts the copy into the package when it is built.
    """
    inside = PACKAGE / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent / FOLDER


def find_config(path: str | Path) -> Path:
    """Return the path of a configuration file.

    A relative path below `configs/` that does not exist is that of the package's copy, so that
    every entry point works in any folder.
    """
    path = Path(path)
    if not path.exists() and path.parts[:1] == (FOLDER,):
        packaged = packaged_configs().joinpath(*path.parts[1:])
        return packaged if packaged.is_file() else path
    return path
