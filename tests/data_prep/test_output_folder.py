"""Where the output folder may be; how a staged folder takes its place."""

import os
from pathlib import Path

import pytest

from pixelis.data_prep.output_folder import check_output_folder
from pixelis.errors import DataError
from pixelis.files import staged_folder


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(out, text="new"):
    with staged_folder(out) as folder:
        (folder / "summary.json").write_text(text)


def make_file(tmp_path):
    (tmp_path / "cota").write_text("mine")
    return tmp_path / "cota", "cannot be written: .*cota"


def make_other_files(tmp_path):
    (tmp_path / "cota").mkdir()
    for name in ("notes.txt", "summary.json"):
        (tmp_path / "cota" / name).write_text("mine")
    return tmp_path / "cota", "holds other files; name an empty or a new folder .*notes.txt"


def make_file_above(tmp_path):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "cota", "cannot be written: .*file"


def name_mount_point(tmp_path):
    return Path("/proc"), r"is a mount point.*folder in it$"


def name_too_long(tmp_path):
    return tmp_path / ("x" * 300), "cannot be written: .*too long"


CASES = [make_file, make_other_files, make_file_above, name_mount_point, name_too_long]


@pytest.mark.parametrize("make", CASES)
def test_a_path_that_must_not_be_written_is_refused_and_left_alone(tmp_path, make):
    out, message = make(tmp_path)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(DataError, match=rf"^output_dir {str(out)[:200]} {message}"):
        check_output_folder(out)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_new_files_replace_all_old_ones(tmp_path):
    out = tmp_path / "cota"
    write(out, "old")
    (out / "more").touch()
    with staged_folder(out) as folder:
        (folder / "summary.json").write_text("new")
        assert contents(out)["summary.json"] == "old", "until the end the old ones are there"
    assert contents(out) == {"summary.json": "new"} and names_in(tmp_path) == {"cota"}


@pytest.mark.parametrize("stopped_by", [OSError("disk full"), RuntimeError(), KeyboardInterrupt()])
def test_old_files_survive_when_writing_stops_midway(tmp_path, stopped_by):
    out = tmp_path / "cota"
    write(out, "old")
    with pytest.raises(type(stopped_by)), staged_folder(out) as folder:
        (folder / "summary.json").write_text("half")
        raise stopped_by
    assert contents(out) == {"summary.json": "old"}
    assert names_in(tmp_path) == {"cota"}, "nothing half-written is left"


@pytest.mark.parametrize("error", [OSError("no such luck"), KeyboardInterrupt()])
def test_old_files_come_back_when_the_second_of_two_moves_fails(tmp_path, monkeypatch, error):
    out = tmp_path / "cota"
    write(out, "old")
    replace = os.replace

    def failing(source, target):
        if str(source).endswith(".new"):
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(type(error)):
        write(out)
    assert contents(out) == {"summary.json": "old"} and names_in(tmp_path) == {"cota"}


def test_leftovers_of_killed_processes_are_removed_or_restored(tmp_path):
    for name in (".cota.7.old", ".cota.a_b1.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(name)
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "cota"):
        raise RuntimeError
    assert contents(tmp_path / "cota") == {"summary.json": ".cota.7.old"}, "killed between moves"
    assert names_in(tmp_path) == {"cota"}


@pytest.mark.parametrize(
    ("out", "name"),
    [
        *(("cota", name) for name in (".cota.new", "cota.7.new", ".a.1.new", ".cota.b.7.old")),
        ("c[ot]a", ".coa.7.new"),
    ],
)
def test_other_folders_that_look_like_leftovers_stay(tmp_path, out, name):
    (tmp_path / name).mkdir()
    write(tmp_path / out)
    assert names_in(tmp_path) == {out, name}
