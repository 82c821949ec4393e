import pytest

from pixelis.data.encode import Encoder
from pixelis.models.load import load_processor
from tests.faults.pictures import write_all


@pytest.fixture
def folder(tmp_path):
    """A folder of images, right and wrong, that links try to leave."""
    place = tmp_path / "input"
    place.mkdir()
    write_all(place)
    return place


@pytest.fixture(scope="session")
def encoder():
    """The embedded base's own, by what an entry point loads it with."""
    return Encoder(load_processor("pixelis-nano"))
