"""What breaks the program on purpose shares: folders with a store, processes, and the table."""

import json
import os
import shutil

import pytest

from pixelis.data.encode import Encoder
from pixelis.models.load import load_processor
from tests.faults.hostile import RAN
from tests.faults.pictures import write_all
from tests.faults.processes import Place, Starter
from tests.forking import ROOT, ForkServer
from tests.small_data import make_small_data

FULL = os.environ.get("PIXELIS_FAULTS") == "full"


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


@pytest.fixture
def is_full():
    """Whether all faults are asked for (`FULL=1 make faults`), not a part of them."""
    return FULL


@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    """Three data files of a few dozen examples."""
    folder = tmp_path_factory.mktemp("faults") / "data"
    return make_small_data(folder)


@pytest.fixture
def new_place(empty_store, tmp_path):
    """Makes working folders, each with a store of its own and what is copied into it."""

    def make(name, **copied):
        place = Place(tmp_path / name)
        place.use_store(empty_store)
        for inside, source in copied.items():
            shutil.copytree(source, place.folder / inside)
        return place

    return make


@pytest.fixture(scope="module")
def starter():
    """Starts entry points in processes of their own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    }
    with ForkServer("tests.faults.forked_cli", environment) as server:
        yield Starter(server, environment)


@pytest.fixture
def tell(record_property):
    """Puts a line of the table: the class of a fault, how often, and what was lost."""

    def line(fault, times, lost="nothing", detail=""):
        record_property("fault", json.dumps([fault, times, lost, detail]))

    return line


@pytest.fixture(autouse=True)
def tell_of_cases(tell):
    """Puts the cases of hostile input that a test ran into the table."""
    yield
    while RAN:
        kind, count = RAN.pop()
        tell(f"hostile {kind}", count, "nothing: let in rightly, or refused in a line")


def pytest_terminal_summary(terminalreporter):
    lines = [
        json.loads(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"  # has what the test told, too
        for name, value in getattr(report, "user_properties", ())
        if name == "fault"
    ]
    if not lines:
        return
    terminalreporter.section("what was broken on purpose")
    for fault, _, _, detail in lines:
        for moment in detail.splitlines():
            terminalreporter.line(f"{fault}: {moment}")
    totals = {}
    for fault, times, lost, _ in lines:
        so_far, what = totals.get(fault, (0, set()))
        totals[fault] = so_far + times, what | {lost}
    terminalreporter.line("")
    terminalreporter.line("| fault | times | lost |")
    terminalreporter.line("| --- | ---: | --- |")
    for fault, (times, what) in sorted(totals.items()):
        terminalreporter.line(f"| {fault} | {times} | {', '.join(sorted(what))} |")
