"""The ordered map over processes; functions of modules, since workers know none of a test's."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count, islice

import psutil
import pytest

from pixelis.data_prep.importing.files import detect_container
from pixelis.data_prep.parallel import AHEAD, map_ordered
from pixelis.errors import DataError

pytestmark = pytest.mark.integration
KILLED = (
    "a worker process was killed or could not start (out of memory?); try fewer than num_workers 2"
)


def workers(parent):
    """Worker processes: not those that the parent starts itself, the server and its tracker."""
    children = parent.children(recursive=True)
    return [one for one in children if is_running(one, parent.pid)]


def is_running(process, parent=None):
    try:
        is_alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.ppid() != parent
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    wait_for(lambda: workers(psutil.Process()) == [], seconds=5)


@pytest.mark.parametrize("num_workers", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(num_workers):
    items = list(range(40))
    results = list(map_ordered(operator.neg, items, num_workers))
    assert results == [-item for item in items]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_no_items_give_no_results(num_workers):
    assert list(map_ordered(operator.neg, [], num_workers)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_items_without_end_are_read_a_few_ahead(num_workers):
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    results = map_ordered(operator.neg, items(), num_workers)
    assert list(islice(results, 10)) == [-number for number in range(10)]
    results.close()
    assert len(taken) <= 10 + AHEAD * num_workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_function_s_error_is_raised_behind_the_results_before_it(tmp_path, num_workers):
    text, lines = tmp_path / "notes.json", tmp_path / "x.jsonl"
    text.write_text("no data", encoding="utf-8")
    lines.write_text('{"question": "What?"}\n', encoding="utf-8")
    results = map_ordered(detect_container, [lines, lines, text], num_workers)
    assert [next(results), next(results)] == ["lines", "lines"]
    with pytest.raises(DataError, match="notes.json holds no records; it must be JSON with a list"):
        next(results)


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise DataError("the file ends here")

    with pytest.raises(DataError, match="^the file ends here$"):
        list(map_ordered(operator.neg, items(), 2))


def test_a_worker_that_dies_is_a_clear_error(capfd):
    with pytest.raises(DataError) as error:
        list(map_ordered(os._exit, [3], 2))
    assert str(error.value) == KILLED
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("more", [[], [bytes(10**7)] * 5], ids=["none", "larger than a pipe"])
def test_a_caller_who_stops_waits_for_no_long_item(more):
    results = map_ordered(time.sleep, iter([0, 60, 60, *more]), 2)
    assert next(results) is None
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 3


KILL_ME = """
from pixelis.data_prep.parallel import map_ordered

try:
    for result in map_ordered(bytes, [10**7] * 1000, 2):
        print(len(result), flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.mark.parametrize("whom", ["one", "all", "server"])
@pytest.mark.parametrize("delay", [0.0, 0.011, 0.023])
def test_whoever_is_killed_while_large_results_are_on_their_way_nobody_hangs(whom, delay):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", KILL_ME], **pipes) as process:
        parent = psutil.Process(process.pid)
        timeout = threading.Timer(60, parent.kill)
        timeout.start()
        try:
            assert process.stdout.readline() == "10000000\n"
            wait_for(lambda: len(workers(parent)) == 2)
            time.sleep(delay)
            both = workers(parent)
            killed = [both[0].parent(), *both] if whom == "server" else both
            for one in killed[:1] if whom == "one" else killed:
                one.send_signal(signal.SIGKILL)
            output, errors = process.communicate(timeout=30)
        finally:
            timeout.cancel()
            process.kill()
    assert output.splitlines()[-1] == f"DataError {KILLED}" and "Traceback" not in errors
