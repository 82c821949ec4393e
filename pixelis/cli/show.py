"""show: print examples of a data folder, and write a page with their images."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import Parser, run_cli
from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and show the examples."""
    parser = Parser("show")
    add = parser.add_argument
    folder = "folder that data-prep wrote [default: data/cota]"
    add("folder", nargs="?", default="data/cota", metavar="FOLDER", help=folder)
    add("--difficulty", choices=DIFFICULTIES, help="of this difficulty alone")
    add("--task", help="of this task alone")
    add("--split", choices=SPLITS, help="of this split alone")
    add("--num", type=int, default=6, help="how many, difficulties and tasks in turn [default: 6]")
    page = "the page that is written [default: outputs/show.html]"
    add("--page", default="outputs/show.html", metavar="FILE", help=page)
    arguments = parser.parse_args(argv)
    if arguments.num < 1:
        raise ConfigError(f"num must be >= 1, got {arguments.num}")

    from pixelis.runs.show import ShowSettings, run_show  # imports pyarrow

    values = vars(arguments)
    values |= {name: Path(values[name]) for name in ("folder", "page")}
    run_show(ShowSettings(**values))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
