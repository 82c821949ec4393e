"""app: a page in the browser that asks an adapter about images of your own."""

from collections.abc import Sequence

from pixelis.cli.arguments import Parser, add_adapter_options, parse_arguments, run_cli
from pixelis.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and serve the page until Ctrl-C."""
    parser = Parser("app")
    add_adapter_options(parser)
    port = "port on this machine; 0: any that is free [default: 7860]"
    parser.add_argument("--port", type=int, default=7860, help=port)
    arguments, others = parser.parse_known_args(argv)
    (model,) = parse_arguments("app", others)
    if not 0 <= arguments.port < 2**16:
        raise ConfigError(f"port must be in [0, 65535], got {arguments.port}")

    from pixelis.runs.app import run_app  # imports torch

    run_app(arguments.adapter, arguments.experiment, arguments.port, model.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
