"""Data that is missing is made once, whoever asks."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pixelis.cli.making import make_data
from pixelis.config import DataPrepConfig

CONFIG = DataPrepConfig(num_samples=40, num_workers=1, tasks=("attribute_recognition",))


def test_two_that_need_the_same_folder_make_it_once(tmp_path, capsys):
    make = partial(make_data, CONFIG, tmp_path / "deep" / "data", only_if_missing=True)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(make), pool.submit(make)
        results = [first.result(), second.result()]
    (summary,) = [result for result in results if result is not None]
    assert summary["num_samples"] == 40
    assert capsys.readouterr().out.count("40 examples in ") == 1


def test_asked_for_by_name_it_is_made_again(tmp_path, capsys):
    out = Path(tmp_path / "data")
    make_data(CONFIG, out)
    before = (out / "summary.json").stat().st_mtime_ns
    assert make_data(CONFIG, out) is not None
    assert (out / "summary.json").stat().st_mtime_ns > before
