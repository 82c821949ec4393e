"""JSON, seals and the order of checkpoints."""

import json
import re

import pytest

from pixelis.errors import CheckpointError
from pixelis.training.checkpoint import (
    COMPLETE_FILE,
    check_same_config,
    check_whole,
    checkpoints,
    delete_older,
    find_fault,
    read_json,
    seal,
    write_json,
)


def test_json_is_there_whole_or_not_at_all(tmp_path):
    write_json({"a": [1, None]}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}


@pytest.mark.parametrize("content", [None, "{", "\udcff"])
def test_json_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=re.escape(f"{path} cannot be read: ")):
        read_json(path)


# Whole or torn


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "checkpoint-4"
    place.mkdir()
    (place / "a.bin").write_bytes(b"weights")
    write_json({"step": 4}, place / "state.json")
    seal(place)
    return place


def test_a_sealed_folder_is_whole(folder):
    assert find_fault(folder) is None
    check_whole(folder)
    assert set(json.loads((folder / COMPLETE_FILE).read_text())) == {"a.bin", "state.json"}
    # A temporary file that a killed process left says nothing about the rest.
    (folder / ".state.json.77.tmp").touch()
    assert find_fault(folder) is None


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda f: (f / "a.bin").write_bytes(b"weighty"), "a.bin differ from what was saved"),
        (lambda f: (f / "a.bin").write_bytes(b""), "a.bin differ from what was saved"),
        (
            lambda f: [p.unlink() for p in f.iterdir() if p.name != COMPLETE_FILE],
            "a.bin, state.json differ from what was saved",
        ),
    ],
)
def test_a_folder_that_is_not_whole(folder, harm, fault):
    harm(folder)
    assert find_fault(folder) == fault
    with pytest.raises(CheckpointError) as caught:
        check_whole(folder)
    assert str(caught.value) == f"checkpoint {folder} is not whole: {fault}"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint .*no does not exist"):
        check_whole(tmp_path / "no")


def test_checkpoints_are_found_newest_first(tmp_path):
    for name in ("checkpoint-9", "checkpoint-100", "checkpoint-20", "checkpoint-x", "best"):
        (tmp_path / name).mkdir()
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["checkpoint-100", "checkpoint-20", "checkpoint-9"]
    assert list(checkpoints(tmp_path / "no")) == []


@pytest.mark.parametrize(
    ("num_kept", "left"), [(1, [40, 30]), (2, [40, 30, 20]), (3, [40, 30, 20, 10]), (9, None)]
)
def test_older_checkpoints_are_deleted_later_ones_stay(tmp_path, num_kept, left):
    # 40 may be left from before a resume at 30 or earlier.
    for step in (10, 20, 30, 40):
        (tmp_path / f"checkpoint-{step}").mkdir()
    delete_older(tmp_path / "checkpoint-30", num_kept)
    left = left or [40, 30, 20, 10]
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in left]


def test_the_same_configuration_passes_and_another_is_named(tmp_path):
    check_same_config({"a": 1, "b": None}, {"a": 1, "b": None}, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        check_same_config({"a": 1, "b": "x", "c": 3}, {"a": 1, "b": "y", "d": 4}, tmp_path)
    assert str(caught.value) == (
        f"checkpoint {tmp_path} is from another configuration: b was 'x', is 'y'; "
        "c was 3, is None; d was None, is 4; "
        "go on with the same values, or start anew without resume"
    )
