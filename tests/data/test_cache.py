"""What is computed once: whole or not at all, by one of many, in the first place that takes it."""

import copy
import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken

from pixelis.data.cache import build_once, cache_folder, cache_folders, cache_key, tokens_key
from pixelis.data.encode import Encoder
from pixelis.models.load import load_processor, resolve_model
from pixelis.models.vision import PositionRule


def test_it_is_built_once_and_then_found(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "value").write_text("1")

    place = tmp_path / "caches" / "one"
    assert build_once(place, build) == place
    assert build_once(place, build) == place
    assert len(built) == 1 and built[0].parent == place.parent  # the same file system
    assert (place / "value").read_text() == "1"


def test_what_fails_half_way_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "value").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    needed = "no space left on its disk: about 5.0 MiB needed"
    with pytest.raises(OSError, match=needed) as error:
        build_once(tmp_path / "one", build, needed=5 * 2**20)
    assert error.value.filename == str(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] in ([], [".one.lock"])


def test_what_a_killed_process_left_is_taken_away(tmp_path):
    def killed(folder):
        (folder / "value").write_text("half")
        os._exit(9)

    process = multiprocessing.get_context("fork").Process(
        target=build_once, args=(tmp_path / "one", killed)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    build_once(tmp_path / "one", lambda folder: (folder / "value").write_text("whole"))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["one"]
    assert (tmp_path / "one" / "value").read_text() == "whole"


def _build_and_count(place, log, barrier):
    def build(folder):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        (folder / "value").write_text("1" * 100_000)

    barrier.wait(60)
    assert len((build_once(place, build) / "value").read_text()) == 100_000


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, log = context.Barrier(4), tmp_path / "log"
    place = tmp_path / "caches" / "one"
    workers = [
        context.Process(target=_build_and_count, args=(place, log, barrier)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(log.read_text().splitlines()) == 1


def test_the_key_is_of_the_facts_not_of_their_order():
    assert cache_key({"a": 1, "b": [2]}) == cache_key({"b": [2], "a": 1})
    assert cache_key({"a": 1, "b": [2]}) != cache_key({"a": 1, "b": [3]})


def test_beside_the_data_then_the_user_s_then_one_that_is_gone_with_the_process(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    data = tmp_path / "cota"
    beside, users, passing = cache_folders(data)
    assert beside == cache_folder(data) == tmp_path / ".cota.cache"
    assert users == tmp_path / "user" / "pixelis"
    assert passing.is_dir() and not passing.is_relative_to(tmp_path / "user")
    assert list(cache_folders(data, temporary=False)) == [beside, users]
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert list(cache_folders(data, temporary=False))[1] == Path.home() / ".cache" / "pixelis"


# The key of tokens: it changes with whatever would change the tokens of the same data.

NANO = "pixelis-nano"
DATA = {"cota_simple.parquet": "a" * 64, "cota_hard.parquet": "b" * 64}


@pytest.fixture(scope="module")
def rule():
    return PositionRule(NANO)


def build_key(rule, *, data=DATA, change=lambda processor: None, facts=None, **pixels):
    processor = copy.deepcopy(load_processor(NANO, **{"max_pixels": 12544} | pixels))
    change(processor)
    return tokens_key(Encoder(processor), data, rule.facts if facts is None else facts)


def test_the_same_facts_are_the_same_key_in_any_order(rule):
    reordered = dict(reversed(DATA.items()))
    assert build_key(rule) == build_key(rule, data=reordered) == build_key(PositionRule(NANO))


def test_one_model_in_two_folders_has_one_key(tmp_path):
    """Another checkout of a project, as `mlflow run <git URL>` makes one each time, is the same."""
    keys = set()
    for name in ("one", "two"):
        shutil.copytree(resolve_model(NANO), tmp_path / name)
        rule = PositionRule(str(tmp_path / name))
        assert str(tmp_path / name) in json.dumps(rule.facts)
        keys.add(tokens_key(Encoder(load_processor(str(tmp_path / name))), DATA, rule.facts))
    assert len(keys) == 1


def retemplate(processor):
    processor.chat_template += " "


def extend(processor):
    processor.tokenizer.add_tokens([AddedToken("a new word")])


CHANGES = {
    "data": {"data": DATA | {"cota_hard.parquet": "c" * 64}},
    "template": {"change": retemplate},
    "tokenizer": {"change": extend},
    "min_pixels": {"min_pixels": 6272},
    "max_pixels": {"max_pixels": 25088},
    "the base's configuration": {"facts": {"model_type": "another"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_makes_other_tokens_has_another_key(rule, change):
    assert build_key(rule, **change) != build_key(rule)
