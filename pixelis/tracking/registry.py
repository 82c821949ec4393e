"""Adapters in MLflow's model registry: a candidate, and the champion that it has to beat."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

CANDIDATE = "candidate"
CHAMPION = "champion"


def register(client: MlflowClient, name: str, model_id: str, run_id: str) -> str:
    """Make a LoggedModel a version of a registered model, with the alias `candidate`, once.

    Returns:
        the version.
    """
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    versions = client.search_model_versions(f"name = '{name}'")
    known = next((v for v in versions if v.source == source), None)  # it keeps no model_id
    if known is not None:
        return str(known.version)
    made = client.create_model_version(name, source, run_id=run_id, model_id=model_id)
    client.set_registered_model_alias(name, CANDIDATE, str(made.version))
    return str(made.version)


def find_version(uri: str) -> ModelVersion | None:
    """The registered version that `models:/<name>/<version>` or `models:/<name>@<alias>` means.

    Returns:
        None where the address is none of a registered model.
    """
    client = MlflowClient()
    address = uri.removeprefix("models:/").rstrip("/")
    if not uri.startswith("models:/"):
        return None
    if "@" in address:
        name, _, alias = address.rpartition("@")
        return client.get_model_version_by_alias(name, alias)
    name, _, version = address.rpartition("/")
    if not name:
        return None  # models:/m-...: a LoggedModel by its id
    if version == "latest":
        versions = client.search_model_versions(f"name = '{name}'")
        return max(versions, key=lambda v: int(v.version), default=None)
    return client.get_model_version(name, version)


def find_champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version with the alias `champion`, or None."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def crown(client: MlflowClient, version: ModelVersion, why: str) -> None:
    """Give a version the alias `champion`, and say on it why."""
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))
    client.set_model_version_tag(version.name, str(version.version), "pixelis.champion", why)
