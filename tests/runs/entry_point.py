"""An entry point that does what tests of processes need; run by its name."""

import os
import signal
import sys
import time
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.errors import UserError


def main(argv):
    act, *words = argv
    if act == "meet":
        own, other = map(Path, words)
        own.touch()
        while not other.exists():
            time.sleep(0.01)
        print("met")
    elif act == "variables":
        print(*(os.environ[name] for name in words))
    elif act == "fail":
        raise UserError(*words)
    elif act == "leave":
        return int(words[0])
    elif act == "sleep":
        time.sleep(60)
    elif act == "save":
        signal.signal(signal.SIGTERM, _save)
        print("up", flush=True)
        time.sleep(60)
    elif act == "say":
        print(*words)
    return 0


def _save(*_):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(130)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
