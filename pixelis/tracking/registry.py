"""Adapters in MLflow's model registry, with the aliases `candidate` and `champion`."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pixelis.errors import CheckpointError
from pixelis.tracking.lookup import FINAL_ADAPTER
from pixelis.tracking.privacy import first_line, public
from pixelis.tracking.store import connect

CANDIDATE = "candidate"
CHAMPION = "champion"


def register(client: MlflowClient, name: str, model_id: str, run_id: str) -> str:
    """Register a LoggedModel, once, as a new version with the alias `candidate`."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((v for v in versions if v.source == source), None)  # versions have no model_id
    if version is None:
        version = client.create_model_version(name, source, run_id=run_id, model_id=model_id)
    candidate = client.get_registered_model(name).aliases.get(CANDIDATE, 0)
    if int(candidate) < int(version.version):
        client.set_registered_model_alias(name, CANDIDATE, str(version.version))
    return str(version.version)


def find_version(uri: str) -> ModelVersion | None:
    """Return the registered version at an address.

    Args:
        uri: `models:/<name>/<version>`, `models:/<name>@<alias>`; or of a registered LoggedModel or
            run, `models:/m-...`, `runs:/<id>` or `runs:/<id>/adapters/final`.

    Returns:
        The version, the newest if there are several; None if the address was never registered.

    Raises:
        CheckpointError: There is no such version.
    """
    try:
        return _find_version(connect(), uri)
    # Versions may be in a database of their own, which fails with its own exceptions.
    except Exception as error:
        reason = public(first_line(error))
        raise CheckpointError(f"the adapter {uri} cannot be found: {reason}") from error


def _find_version(client: MlflowClient, uri: str) -> ModelVersion | None:
    run_id = uri.removeprefix("runs:/").rstrip("/").removesuffix(f"/{FINAL_ADAPTER}")
    if uri.startswith("runs:/") and "/" not in run_id:
        return _newest(client, f"run_id = '{run_id}'")
    address = uri.removeprefix("models:/").rstrip("/")
    if not uri.startswith("models:/"):
        return None
    if "@" in address:
        name, _, alias = address.rpartition("@")
        return client.get_model_version_by_alias(name, alias)
    name, _, version = address.rpartition("/")
    if not name:
        return _newest(client, f"source_path = 'models:/{address}'")  # a LoggedModel's id
    if version == "latest":
        return _newest(client, f"name = '{name}'")
    return client.get_model_version(name, version)


def _newest(client: MlflowClient, query: str) -> ModelVersion | None:
    return max(client.search_model_versions(query), key=_age, default=None)


def _age(version: ModelVersion) -> tuple[int, int]:
    return int(version.creation_timestamp), int(version.version)


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version with the alias `champion`, or None."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def set_champion(client: MlflowClient, version: ModelVersion, rival: str | None, why: str) -> bool:
    """Give a version the alias `champion`, with the reason as a tag.

    Returns:
        Whether the alias was set: not if `rival`, the version that it was compared with, or None,
        is no longer the champion.
    """
    now = find_champion(client, version.name)
    if (None if now is None else str(now.version)) != rival:
        return False
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))
    client.set_model_version_tag(version.name, str(version.version), "pixelis.champion", why)
    return True
