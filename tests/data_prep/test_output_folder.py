import hashlib
import os
import re
import time
from pathlib import Path

import psutil
import pytest

from pixelis import files as module
from pixelis.data_prep.output_folder import OURS, check_output_folder, staged_folder
from pixelis.errors import DataError
from pixelis.files import file_sha256

NOBODY = 2**22 + 17  # above the largest number that a process can have


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(out, text="new"):
    with staged_folder(out) as folder:
        for name in OURS:
            (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(params=["exchange", "two moves"])
def exchanging(request, monkeypatch):
    """Both ways to replace a folder."""
    if request.param == "two moves":
        monkeypatch.setattr(module, "swap_folders", lambda first, second: False)
    return request.param


def test_this_system_exchanges_folders_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of {name}").touch()
    assert module.swap_folders(tmp_path / "a", tmp_path / "b")
    assert (names_in(tmp_path / "a"), names_in(tmp_path / "b")) == ({"of b"}, {"of a"})


# Refused before any work


def make_file(tmp_path):
    (tmp_path / "cota").write_text("mine", encoding="utf-8")
    return tmp_path / "cota", "is a file; name a folder$"


def make_other_files(tmp_path):
    (tmp_path / "cota").mkdir()
    for name in ("notes.txt", "summary.json"):
        (tmp_path / "cota" / name).write_text("mine", encoding="utf-8")
    return tmp_path / "cota", "holds other files; name an empty or a new folder .*notes.txt"


def make_file_above(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    return tmp_path / "file" / "cota", "cannot be written: .*file"


def name_mount_point(tmp_path):
    return Path("/proc"), r"is a mount point.*folder in it$"


@pytest.mark.parametrize("make", [make_file, make_other_files, make_file_above, name_mount_point])
def test_a_path_that_must_not_be_written_is_refused_and_left_alone(tmp_path, make):
    out, message = make(tmp_path)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for refuse in (check_output_folder, write):
        with pytest.raises(DataError, match=f"^output_dir {out} {message}"):
            refuse(out)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(DataError, match="^output_dir .* cannot be written: .*too long"):
        write(tmp_path / ("x" * 250))
    assert names_in(tmp_path) == set()


# Whole or not at all


def test_folders_above_are_made(tmp_path):
    write(tmp_path / "a" / "b" / "cota")
    assert names_in(tmp_path / "a" / "b") == {"cota"}
    assert names_in(tmp_path / "a" / "b" / "cota") == OURS


def test_an_empty_folder_and_an_incomplete_one_are_filled(tmp_path, exchanging):
    out = tmp_path / "cota"
    out.mkdir()
    write(out)
    (out / "summary.json").unlink()
    write(out)
    assert names_in(out) == OURS and names_in(tmp_path) == {"cota"}


def test_new_files_replace_all_old_ones(tmp_path, exchanging):
    out = tmp_path / "cota"
    write(out, "old")
    with staged_folder(out) as folder:
        (folder / "summary.json").write_text("new", encoding="utf-8")
        assert set(contents(out).values()) == {b"old"}, "until the end the old ones are there"
    assert contents(out) == {"summary.json": b"new"}
    assert names_in(tmp_path) == {"cota"}


@pytest.mark.parametrize("stopped_by", [OSError("disk full"), RuntimeError(), KeyboardInterrupt()])
def test_old_files_survive_when_writing_stops_midway(tmp_path, exchanging, stopped_by):
    out = tmp_path / "cota"
    write(out, "old")
    before = contents(out)
    expected = DataError if isinstance(stopped_by, OSError) else type(stopped_by)
    with pytest.raises(expected), staged_folder(out) as folder:
        (folder / "cota_medium.parquet").write_bytes(b"half")
        raise stopped_by
    assert contents(out) == before
    assert names_in(tmp_path) == {"cota"}, "nothing half-written is left"


@pytest.mark.parametrize("error", [OSError("no such luck"), KeyboardInterrupt()])
def test_old_files_come_back_when_the_second_of_two_moves_fails(tmp_path, monkeypatch, error):
    out = tmp_path / "cota"
    write(out, "old")
    before = contents(out)
    monkeypatch.setattr(module, "swap_folders", lambda first, second: False)
    replace = os.replace

    def failing(source, target):
        if str(source).endswith(".new"):
            raise error
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", failing)
    with pytest.raises((DataError, KeyboardInterrupt)) as caught:
        write(out)
    if isinstance(error, OSError):
        assert str(caught.value) == f"output_dir {out} cannot be written: no such luck"
    assert contents(out) == before and names_in(tmp_path) == {"cota"}


def test_a_link_stays_a_link(tmp_path, exchanging):
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "cota"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    for _ in range(2):
        write(link)
        assert link.is_symlink() and names_in(tmp_path / "disk") == OURS
        assert names_in(tmp_path / "here") == {"cota"}
        assert names_in(tmp_path) == {"disk", "here"}


# Leftovers of killed processes


def leave(folder, name, number=NOBODY):
    left = folder / name.format(number)
    left.mkdir()
    (left / "summary.json").write_text("left", encoding="utf-8")
    return left


def test_leftovers_are_removed(tmp_path):
    for leftovers in (
        [(".cota.{}.new", NOBODY), (".cota.{}.new", os.getpid())],
        [(".cota.{}.new", NOBODY), (".cota.{}.old", NOBODY)],
    ):
        for name, number in leftovers:
            leave(tmp_path, name, number)
        write(tmp_path / "cota")
        assert names_in(tmp_path) == {"cota"} and names_in(tmp_path / "cota") == OURS


def test_old_files_are_put_back_after_a_kill_between_two_moves(tmp_path):
    leave(tmp_path, ".cota.{}.old")
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "cota"):
        raise RuntimeError
    assert contents(tmp_path / "cota") == {"summary.json": b"left"}
    assert names_in(tmp_path) == {"cota"}


@pytest.mark.parametrize(
    ("out", "name"),
    [
        *(("cota", name) for name in (".cota.x.new", ".cota.new", "cota.7.new", ".a.1.new")),
        *(("cota", name) for name in (".cota.b.{}.new", ".cota.b.{}.old")),
        ("c[ot]a", ".coa.{}.new"),
    ],
)
def test_other_folders_that_look_like_leftovers_stay(tmp_path, out, name):
    left = leave(tmp_path, name)
    write(tmp_path / out)
    assert left.is_dir() and names_in(tmp_path / out) == OURS


def test_the_folder_of_a_running_process_stays(tmp_path):
    left = leave(tmp_path, ".cota.{}.new", os.getppid())
    write(tmp_path / "cota")
    assert left.is_dir()


def test_a_process_with_a_reused_number_does_not_protect_a_leftover(tmp_path):
    left = leave(tmp_path, ".cota.{}.new", os.getppid())
    began = psutil.Process(os.getppid()).create_time()
    os.utime(left, (began - 3600, began - 3600))
    write(tmp_path / "cota")
    assert names_in(tmp_path) == {"cota"}


def test_a_zombie_does_not_protect_a_leftover(tmp_path):
    child = os.fork()
    if not child:
        os._exit(0)
    try:
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        leave(tmp_path, ".cota.{}.new", child)
        write(tmp_path / "cota")
        assert names_in(tmp_path) == {"cota"}
    finally:
        os.waitpid(child, 0)


def test_the_digest_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9999)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", file_sha256(path))
