"""What `mlflow server --serve-artifacts` starts: uvicorn with MLflow's app.

Imported once and forked on demand, since the import takes seconds and the server is killed often.
"""

import uvicorn
from mlflow.server.fastapi_app import app


def run(arguments):
    """Answer requests until the process is killed."""
    uvicorn.run(app, host="127.0.0.1", port=arguments["port"], log_level="warning")
    return 0
