"""Registered versions, by every address that MLflow has for them."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pixelis.tracking import crown, find_champion, find_version
from pixelis.tracking.registry import register


@pytest.fixture
def versions(client: MlflowClient) -> list[str]:
    made = []
    for number in range(2):
        run = client.create_run("0")
        model = client.create_logged_model("0", name=f"a{number}", source_run_id=run.info.run_id)
        client.finalize_logged_model(model.model_id, "READY")
        made.append(register(client, "reader", model.model_id, run.info.run_id))
        assert register(client, "reader", model.model_id, run.info.run_id) == made[-1]
    return made


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("models:/reader/1", "1"),
        ("models:/reader/2", "2"),
        ("models:/reader/latest", "2"),
        ("models:/reader@candidate", "2"),
        ("models:/m-0123456789", None),
        ("runs:/abc", None),
        ("outputs/sft/final", None),
    ],
)
def test_a_version_by_its_address(versions: list[str], uri: str, version: str | None) -> None:
    assert versions == ["1", "2"]
    found = find_version(uri)
    assert (None if found is None else str(found.version)) == version


def test_an_address_of_nothing_is_mlflow_s_error(versions: list[str]) -> None:
    with pytest.raises(MlflowException, match="nobody"):
        find_version("models:/reader@nobody")


def test_the_champion_is_who_was_crowned_last(client: MlflowClient, versions: list[str]) -> None:
    assert find_champion(client, "reader") is None
    for uri in ("models:/reader/2", "models:/reader/1"):
        version = find_version(uri)
        assert version is not None
        crown(client, version, "it won")
        champion = find_champion(client, "reader")
        assert champion is not None and champion.version == version.version
        assert champion.tags["pixelis.champion"] == "it won"
