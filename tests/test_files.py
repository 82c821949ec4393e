"""Files and folders that are whole or not there, and what a full disk says."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pixelis.files import (
    describe_full_disk,
    describe_write_error,
    explain_write_errors,
    folder_bytes,
    fsync_folder,
    is_disk_full,
    replace_folder,
    staged_folder,
    write_atomic,
)

ROOM = r"no space left on its disk: about 3\.0 MiB needed, [\d,.]+ MiB free"


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "notes.json"
    for content in ("one", b"two", "dreißig"):
        write_atomic(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_names_path_and_room(tmp_path):
    path = tmp_path / "notes.json"
    write_atomic(path, "old")
    (tmp_path / f".notes.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as error:
        write_atomic(path, b"x" * 3 * 2**20)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert re.fullmatch(ROOM, error.value.strerror)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_another_error_keeps_its_words(tmp_path):
    with pytest.raises(OSError) as error:
        write_atomic(tmp_path / "missing" / "notes", "x")
    assert error.value.errno == errno.ENOENT and "No such file" in error.value.strerror


def test_a_folder_takes_the_place_of_another(tmp_path):
    place = tmp_path / "best"
    for content in ("one", "two"):
        staged = tmp_path / ".best.new"
        (staged / "inside").mkdir(parents=True)
        (staged / "inside" / "file").write_text(content)
        replace_folder(staged, place)
        assert (place / "inside" / "file").read_text() == content
        assert list(tmp_path.iterdir()) == [place]
    assert folder_bytes(place) == 3


def test_a_folder_is_put_back_when_the_second_of_two_moves_fails(tmp_path, monkeypatch):
    for name in ("best", ".best.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    replace = os.replace

    def failing(source, target):
        if str(source).endswith(".new"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / ".best.new", tmp_path / "best")
    assert (tmp_path / "best" / "file").read_text() == "best"
    assert sorted(os.listdir(tmp_path)) == [".best.new", "best"]


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
def test_every_file_gets_the_mode_that_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        with staged_folder(tmp_path / "cache") as staged:
            (staged / "inner").mkdir()
            save_file({"a": torch.zeros(2)}, staged / "inner" / "model.safetensors")
            (staged / "private").touch(0o600)
        (tmp_path / "checkpoint-2").mkdir()
        save_file({"a": torch.zeros(2)}, tmp_path / "checkpoint-2" / "adapter.safetensors")
        fsync_folder(tmp_path / "checkpoint-2")
        write_atomic(tmp_path / "checkpoint-2" / "complete.json", "{}")
    finally:
        os.umask(before)
    of_file, of_folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes(tmp_path / "cache") == {
        **{"cache": of_folder, "inner": of_folder},
        **{"model.safetensors": of_file, "private": of_file},
    }
    assert modes(tmp_path / "checkpoint-2") == {
        "checkpoint-2": of_folder,
        **{"adapter.safetensors": of_file, "complete.json": of_file},
    }


def test_modes_that_allow_more_stay(tmp_path):
    (tmp_path / "tool").touch(0o755)
    (tmp_path / "tool").chmod(0o755)
    tmp_path.chmod(0o700)
    fsync_folder(tmp_path)
    assert modes(tmp_path)["tool"] == 0o755


def test_what_says_that_a_disk_is_full():
    assert is_disk_full(OSError(errno.ENOSPC, "x")) and is_disk_full(OSError(errno.EDQUOT, "x"))
    assert is_disk_full(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(OSError(errno.EACCES, "x")) and not is_disk_full(ValueError("x"))


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_torch_says_of_a_full_disk_is_understood(size):
    with pytest.raises(RuntimeError) as error:
        torch.save({"moments": torch.zeros(size)}, "/dev/full")
    assert is_disk_full(error.value)


def test_a_library_s_own_error_of_a_full_disk_becomes_one_with_the_path(tmp_path):
    with pytest.raises(OSError) as error, explain_write_errors(tmp_path / "a", 3 * 2**20):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert error.value.filename == str(tmp_path / "a") and re.fullmatch(ROOM, error.value.strerror)
    with pytest.raises(ZeroDivisionError), explain_write_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(OSError) as error, explain_write_errors(tmp_path):
        raise OSError(errno.EIO, "the disk is broken")
    assert str(error.value) == f"[Errno 5] the disk is broken: '{tmp_path}'"


def test_room_is_that_of_the_disk_of_a_path_that_is_not_there(tmp_path):
    free = shutil.disk_usage(tmp_path).free / 2**20
    told = describe_full_disk(tmp_path / "a" / "b")
    assert abs(float(re.search(r"([\d,.]+) MiB free", told)[1].replace(",", "")) - free) < 500
    assert "needed" not in told
    assert (
        describe_write_error(OSError(errno.EACCES, "Permission denied"), Path("x")).filename == "x"
    )
