"""init: copy the configuration files into a folder, for editing."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import Parser, run_cli
from pixelis.config import packaged_configs
from pixelis.errors import ConfigError
from pixelis.files import write_atomic


def main(argv: Sequence[str]) -> int:
    """Copy the package's files, and print the paths of those that changed."""
    parser = Parser("init")
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER")
    parser.add_argument("--overwrite", action="store_true", help="replace files that were edited")
    arguments = parser.parse_args(argv)
    target, source = Path(arguments.folder) / "configs", packaged_configs()
    texts = {
        target / file.relative_to(source): file.read_text(encoding="utf-8")
        for file in sorted(source.rglob("*.yaml"))
        if not file.name.startswith("best")  # result of a search in a checkout
    }
    missing = [path for path in texts if not path.exists()]
    edited = [
        path
        for path, text in texts.items()
        if path not in missing and path.read_text(encoding="utf-8") != text
    ]
    if edited and not arguments.overwrite:
        names = ", ".join(map(str, edited))
        raise ConfigError(f"{names}: has other content; --overwrite replaces it")
    for path in [*missing, *edited]:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, texts[path])
        print(path)
    if not missing and not edited:
        print(f"{target} is up to date")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
