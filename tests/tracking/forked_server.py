"""What `mlflow server --serve-artifacts` starts (uvicorn with MLflow's app), forked on demand.

Importing it takes seconds, which a server that is killed again and again would take each time. The
environment is the one that `mlflow server` makes. Reads a line: `start` answers with the process id
of a server (in a session of its own); whoever asked kills it.
"""

import os
import signal
import sys

import uvicorn
from mlflow.server.fastapi_app import app


def main():
    """Answer requests until stdin closes."""
    port = int(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
            finally:
                os._exit(1)
        print(child, flush=True)


if __name__ == "__main__":
    main()
