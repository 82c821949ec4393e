import operator
import os
import signal
import threading
import time
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import psutil
import pytest

from pixelis.data.importing.detect import detect_container
from pixelis.data.workers import AHEAD, map_ordered
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


def test_a_worker_killed_in_the_middle_of_a_large_result_does_not_hang_who_waits():
    ended = []

    def listen():
        with pytest.raises(DataError, match="^a worker process was killed"):
            list(map_ordered(bytes, [3 * 10**8] * 4, 2))
        ended.append(True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    killed, before, ends = False, {}, time.monotonic() + 60
    while not killed and time.monotonic() < ends:
        for pid in children():
            with suppress(psutil.Error):
                size = psutil.Process(pid).memory_info().rss
                # What is sent of the result is made: it is on its way.
                if size - before.setdefault(pid, size) > 2.9 * 10**8:
                    time.sleep(0.005)
                    os.kill(pid, signal.SIGKILL)
                    killed = True
                    break
    assert killed
    listener.join(30)
    assert ended, "it waits for the rest of a result that nobody sends"
