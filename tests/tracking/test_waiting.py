"""What is taken, dropped and kept in memory, in order."""

from pixelis.tracking.delivery import Record
from pixelis.tracking.waiting import Waiting


def metrics(*steps: int) -> list[Record]:
    return [Record("metric", "train/loss", float(step), step) for step in steps]


def text(name: str, value: str) -> Record:
    return Record("text", name, value)


def test_records_of_one_kind_are_taken_together_up_to_what_one_call_carries() -> None:
    waiting = Waiting()
    waiting.append(metrics(*range(1001)))
    waiting.append([text("a", "1"), text("b", "2")])
    sizes = []
    while group := waiting.take():
        sizes.append((group[0].kind, len(group)))
        waiting.drop()
    assert sizes == [("metric", 1000), ("metric", 1), ("text", 1), ("text", 1)]
    assert len(waiting) == 0


def test_what_is_not_dropped_is_taken_again() -> None:
    waiting = Waiting()
    waiting.append(metrics(1, 2))
    assert waiting.take() == metrics(1, 2)
    waiting.put_back()
    waiting.append(metrics(3))
    assert waiting.take() == metrics(1, 2, 3)


def test_a_refused_batch_goes_one_by_one_and_the_next_one_together() -> None:
    waiting = Waiting()
    waiting.append(metrics(1, 2))
    waiting.take()
    waiting.append(metrics(3, 4))
    waiting.split()
    sizes = []
    while group := waiting.take():
        sizes.append(len(group))
        waiting.drop()
    assert sizes == [1, 1, 2]


def test_the_newest_of_a_name_is_removed_but_not_what_is_on_the_way() -> None:
    waiting = Waiting()
    waiting.append([text("a", "1"), text("b", "1")])
    assert waiting.take() == [text("a", "1")]
    waiting.remove("text", "a")
    waiting.remove("text", "b")
    waiting.remove("text", "nothing")
    assert waiting.everything() == [text("a", "1")]


def test_what_is_in_memory_alone_is_known_whatever_comes_and_goes() -> None:
    waiting = Waiting()
    waiting.append(metrics(1, 2), on_disk=True)
    assert waiting.take_off_disk() == []
    waiting.append([text("a", "1"), text("b", "1")])
    waiting.remove("text", "a")
    waiting.append(metrics(3))
    assert waiting.take_off_disk() == [text("b", "1"), *metrics(3)]
    waiting.put_off_disk(2)  # a full disk
    waiting.take()
    waiting.drop()
    waiting.take()
    waiting.drop()
    assert waiting.take_off_disk() == metrics(3)
    waiting.put_off_disk(1)
    waiting.take()
    waiting.drop()
    assert waiting.off_disk == 0


def test_a_record_with_files_is_urgent() -> None:
    waiting = Waiting()
    waiting.append(metrics(1))
    assert not waiting.urgent
    waiting.append([Record("file", "kept", "a/b", files="a")])
    assert waiting.urgent
    waiting.take_off_disk()
    assert not waiting.urgent
