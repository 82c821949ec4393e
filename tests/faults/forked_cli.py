"""Runs an entry point in a fork; see `tests.forking`."""

import importlib

import pixelis.cli.evaluate
import pixelis.runs.evaluate
import pixelis.runs.prepare
import pixelis.runs.tune
from pixelis.cli.arguments import run_cli

assert pixelis.runs.tune  # imported here, so that no fork has to


def run(request):
    """One call of an entry point."""
    module = importlib.import_module(f"pixelis.cli.{request['entry_point']}")
    return run_cli(module.main, request["argv"])
