import operator
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count, islice
from pathlib import Path

import psutil
import pytest

from pixelis.data_prep.importing.files import detect_container
from pixelis.data_prep.workers import AHEAD, map_ordered
from pixelis.errors import DataError

# Functions of modules: workers know no function of a test's.


def children():
    """Workers of this process, wherever they hang: they are the server's children."""
    found = psutil.Process().children(recursive=True)
    return {one.pid for one in found if one.status() != "zombie" and not is_server(one)}


def is_server(process):
    try:
        # The server and the tracker of resources are started once and stay; workers are forks
        # of the server.
        return process.ppid() == os.getpid()
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    ends = time.monotonic() + 3
    while children() and time.monotonic() < ends:
        time.sleep(0.02)
    assert children() == set()


@pytest.mark.parametrize("num_workers", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(num_workers):
    items = list(range(40))
    assert list(map_ordered(operator.neg, items, num_workers)) == [-item for item in items]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_nothing_to_do(num_workers):
    assert list(map_ordered(operator.neg, [], num_workers)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_items_without_end_are_read_a_few_ahead(num_workers):
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    found = map_ordered(operator.neg, items(), num_workers)
    assert list(islice(found, 10)) == [-number for number in range(10)]
    found.close()
    assert len(taken) <= 10 + AHEAD * num_workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_s_error_arrives_as_it_is(tmp_path, num_workers):
    text = tmp_path / "notes.json"
    text.write_text("no data", encoding="utf-8")
    with pytest.raises(DataError) as here:
        detect_container(text)
    with pytest.raises(DataError) as there:
        list(map_ordered(detect_container, [text], num_workers))
    assert type(there.value) is type(here.value) and str(there.value) == str(here.value)


def test_results_before_an_error_are_given():
    found = map_ordered(Path, ["a", "b", 3], 2)
    assert [next(found), next(found)] == [Path("a"), Path("b")]
    with pytest.raises(TypeError):
        next(found)


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise DataError("the file ends here")

    with pytest.raises(DataError, match="^the file ends here$"):
        list(map_ordered(operator.neg, items(), 2))


def test_a_worker_that_dies_is_a_clear_error(capfd):
    with pytest.raises(DataError) as error:
        list(map_ordered(os._exit, [3], 2))
    assert str(error.value) == (
        "a worker process was killed or could not start (out of memory?); "
        "try fewer than num_workers 2"
    )
    assert "Traceback" not in capfd.readouterr().err


def test_who_stops_listening_waits_for_no_long_item():
    found = map_ordered(time.sleep, [0, 60, 60, 60], 2)
    assert next(found) is None
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 3


def test_items_larger_than_a_pipe_do_not_hold_up_the_end():
    found = map_ordered(time.sleep, iter([0, 60, 60, *[bytes(10**7)] * 5]), 2)
    assert next(found) is None
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 3


ASKING = """
import sys, time
from pixelis.data_prep.workers import AHEAD, map_ordered

def items():
    yield from [1] * 2 * AHEAD  # the first result is asked for behind them
    time.sleep(2)  # their results are there: no worker is stopped in the middle of one
    print("up", flush=True)
    sys.stdin.readline()
    yield from [10**7, 10**7]
    print("sent", flush=True)

try:
    for number, result in enumerate(map_ordered(bytes, items(), 2)):
        pass
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def asking():
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", ASKING], **words) as process:

        def end_all():  # workers hold the pipe that is read from
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
            process.kill()

        patience = threading.Timer(90, end_all)
        patience.start()
        yield process
        patience.cancel()
        process.kill()


def test_a_worker_killed_in_the_middle_of_a_result_does_not_hang_who_waits(asking):
    def workers():
        started = psutil.Process(asking.pid).children(recursive=True)
        return [one for one in started if one.ppid() != asking.pid]

    assert asking.stdout.readline() == "up\n"
    wait_for(lambda: len(workers()) == 2)
    both = workers()
    for worker in both:
        worker.suspend()
    asking.stdin.write("\n")
    asking.stdin.flush()
    assert asking.stdout.readline() == "sent\n"
    time.sleep(0.5)  # both have their item
    asking.send_signal(signal.SIGSTOP)  # nobody reads: a result is larger than the pipe
    for worker in both:
        worker.resume()
    time.sleep(1)
    wait_for(lambda: all(worker.status() == "sleeping" for worker in both))
    for worker in both:  # of which one is writing for sure
        worker.kill()
    asking.send_signal(signal.SIGCONT)
    try:
        said, _ = asking.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        pytest.fail("it waits for the rest of a result that nobody sends")
    assert said.startswith("DataError a worker process was killed")


def wait_for(condition):
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.02)
