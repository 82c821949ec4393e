"""ask: ask an adapter about images of your own, and print each turn when it ends."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import MODEL, Parser, parse_arguments, run_cli
from pixelis.errors import ConfigError

NOTE = f"""--model FILE names the base's file [default: {MODEL}]; --model.KEY VALUE changes a
key of it, as for evaluate. Example: pixelis ask --image photo.png --question "What is red?" """


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and ask."""
    parser = Parser("ask")
    parser.epilog, add = NOTE, parser.add_argument
    add("--image", nargs="+", action="extend", metavar="FILE", help="one image, or several frames")
    add("--question", metavar="TEXT", help="what is asked")
    adapter = "folder, runs:/ or models:/ address [default: of the newest finished sft run]"
    add("--adapter", metavar="ADDRESS", help=adapter)
    experiment = "experiment whose newest finished run is taken [default: sft_curriculum]"
    add("--experiment", default="sft_curriculum", metavar="NAME", help=experiment)
    add("--base", action="store_true", help="ask the base too, for comparison")
    output_dir = "folder for the pictures of where it looked [default: outputs/ask]"
    add("--output_dir", default="outputs/ask", metavar="FOLDER", help=output_dir)
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
