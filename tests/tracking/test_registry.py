"""Registered versions, by every address that MLflow has for them."""

import pytest

from pixelis.errors import CheckpointError
from pixelis.tracking import find_champion, find_version, set_champion
from pixelis.tracking.registry import register


@pytest.fixture
def versions(client):
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
def test_a_version_by_its_address(versions, uri, version):
    assert versions == ["1", "2"]
    found = find_version(uri)
    assert (None if found is None else str(found.version)) == version


def test_a_registered_adapter_is_found_by_its_run_and_by_its_model(client, versions):
    for number in versions:
        version = client.get_model_version("reader", number)
        run = f"runs:/{version.run_id}"
        for uri in (run, f"{run}/", f"{run}/adapters/final", version.source):
            found = find_version(uri)
            assert found is not None and str(found.version) == number, uri
        assert find_version(f"{run}/adapters/best") is None
    newest = client.get_model_version("reader", "2")
    client.create_registered_model("other")
    made = client.create_model_version("other", newest.source, run_id=newest.run_id)
    found = find_version(newest.source)
    assert found is not None and (found.name, found.creation_timestamp) == (
        "other",
        made.creation_timestamp,
    )


@pytest.mark.parametrize("uri", ["models:/reader@nobody", "models:/reader/Production"])
def test_an_address_of_nothing_is_named(versions, uri):
    with pytest.raises(CheckpointError, match=f"^the adapter {uri} cannot be found: "):
        find_version(uri)


def test_a_try_that_was_cut_off_before_the_alias_is_made_up_for(client, monkeypatch):
    run_id = client.create_run("0").info.run_id
    model = client.create_logged_model("0", name="a", source_run_id=run_id)

    def cut(*args):
        raise ConnectionError("cut")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(client, "set_registered_model_alias", cut)
        register(client, "reader", model.model_id, run_id)
    assert register(client, "reader", model.model_id, run_id) == "1"
    assert str(client.get_model_version_by_alias("reader", "candidate").version) == "1"


def test_the_champion_is_who_was_crowned_last(client, versions):
    assert find_champion(client, "reader") is None
    for uri, rival in (("models:/reader/2", None), ("models:/reader/1", "2")):
        version = find_version(uri)
        assert version is not None
        assert set_champion(client, version, rival, "it won")
        champion = find_champion(client, "reader")
        assert champion is not None and champion.version == version.version
        assert champion.tags["pixelis.champion"] == "it won"
