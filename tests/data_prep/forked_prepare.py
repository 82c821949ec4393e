"""Prepares data in forks of one process that has imported everything: a run can be killed for real.

Reads a request a line (JSON) and answers with the child's number, then with its exit status.
"""

import json
import os
import signal
import sys
from pathlib import Path

from pixelis.config import DataPrepConfig, load_config
from pixelis.data_prep.prepare import prepare_folder


def run(out, **settings):
    os.setpgid(0, 0)
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = {"difficulty.correlation_samples": 0} | settings
    try:
        prepare_folder(load_config(DataPrepConfig, None, settings), Path(out))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            # As a whole process ends, so that what multiprocessing cleans up at the end is seen.
            sys.exit(run(**json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
