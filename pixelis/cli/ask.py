"""ask: ask an adapter about images of your own, and print each turn when it ends."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import Parser, add_adapter_options, parse_arguments, run_cli
from pixelis.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and ask."""
    parser = Parser("ask")
    add = parser.add_argument
    add("--image", nargs="+", action="extend", metavar="FILE", help="one image, or several frames")
    add("--question", metavar="TEXT", help="what is asked")
    add("--base", action="store_true", help="ask the base too, for comparison")
    output_dir = "folder for the pictures of where it looked [default: outputs/ask]"
    add("--output_dir", default="outputs/ask", metavar="FOLDER", help=output_dir)
    add_adapter_options(parser)
    arguments, others = parser.parse_known_args(argv)
    (model,) = parse_arguments("ask", others)
    if not arguments.image or not arguments.question:
        raise ConfigError("ask needs an image and a question: --image FILE --question TEXT")

    from pixelis.runs.ask import AskSettings, run_ask  # imports torch

    values = vars(arguments)
    values["images"] = tuple(map(Path, values.pop("image")))
    values["output_dir"] = Path(values["output_dir"])
    run_ask(AskSettings(**values), model.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
