"""Processors that would hang, use up memory or raise what they like: refused in a line, at load."""

import shutil
import threading

import pytest

from pixelis.data.chat import Message
from pixelis.data.encode import Encoder
from pixelis.models import trust
from pixelis.models.load import EMBEDDED_DIR, load_processor
from tests.faults.hostile import edit, refused

TOO_LONG = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CONTROL = "{{ raise_exception('\\x1b[2J') }}"
INF = float("inf")


@pytest.fixture
def folder(tmp_path):
    """The embedded base's processor alone, that a test may harm."""
    without_weights = shutil.ignore_patterns("*.safetensors")
    return shutil.copytree(EMBEDDED_DIR, tmp_path / "model", ignore=without_weights)


def refuse(folder):
    said = refused(load_processor, str(folder))
    assert f"'{folder}'" in said
    return said


@pytest.mark.parametrize(
    "harm",
    [
        {"pre_tokenizer": {"type": "x"}},
        {"model__vocab": {}},
        {"model__type": "Evil"},
    ],
    ids=["step", "words", "kind"],
)
def test_tokenizers_that_are_none(folder, harm):
    edit(folder / "tokenizer.json", **harm)
    assert refuse(folder).startswith("no processor for ")


@pytest.mark.parametrize("name", ["RoFormerTokenizer", "CpmTokenizer", "BertTokenizer"])
def test_tokenizers_of_another_class(folder, name):
    """They need a package that is not here, or read the words in another way."""
    edit(folder / "tokenizer_config.json", tokenizer_class=name)
    refuse(folder)


@pytest.mark.parametrize("name", ["Evil", "CLIPImageProcessor"])
def test_processors_that_lack_a_part(folder, name):
    edit(folder / "processor_config.json", processor_class=name)
    assert "has no " in refuse(folder)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"size": {"height": 224, "width": 224}}, "size.shortest_edge must be an integer >= 1"),
        ({"size": {"shortest_edge": "a", "longest_edge": "b"}}, "size.shortest_edge must be an"),
        ({"size": {"shortest_edge": 0, "longest_edge": 0}}, "size.shortest_edge must be an"),
        ({"size": {"shortest_edge": 1, "longest_edge": -7}}, "size.longest_edge must be an"),
        ({"size": {"shortest_edge": 1, "longest_edge": INF}}, "size.longest_edge must be an"),
        ({"size": {"shortest_edge": 10**13, "longest_edge": 10**14}}, "at most 67108864 are taken"),
        ({"patch_size": 0}, "patch_size must be an integer from 1 to 1024, got 0"),
        ({"patch_size": "x"}, "patch_size must be an integer from 1 to 1024, got 'x'"),
        ({"patch_size": 1000, "merge_size": 1000}, "at most 67108864 are taken"),
        ({"merge_size": 0}, "merge_size must be an integer from 1 to 1024, got 0"),
        ({"temporal_patch_size": 10**9}, "temporal_patch_size must be an integer from 1 to 1024"),
        ({"image_mean": "x"}, "does not encode an image and a turn: TypeError: "),
        ({"image_std": [1, 2]}, "does not encode an image and a turn: RuntimeError: "),
    ],
    ids=range(13),
)
def test_sizes_that_are_none(folder, changes, rule):
    edit(
        folder / "processor_config.json",
        **{f"image_processor__{key}": value for key, value in changes.items()},
    )
    assert rule in refuse(folder)


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("{% for %}", "TemplateSyntaxError: "),
        ("{{ raise_exception('not today') }}", "TemplateError: not today"),
        (CONTROL, r"TemplateError: \x1b[2J"),
        ("{{ a.b }}", "UndefinedError: 'a' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: "),
        ("{{ 1 / 0 }}", "ZeroDivisionError: "),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError: "),
        ("{{ 'x' * 10000000000000 }}", "MemoryError: "),
        ("{{ 10**10**10 }}", "its chat template takes a power (**), which may have no end"),
        ("no image", "the chat template rendered fewer images than the messages hold"),
    ],
    ids=range(10),
)
def test_templates_that_render_nothing(folder, template, rule):
    (folder / "chat_template.jinja").write_text(template)
    assert rule in refuse(folder)


def test_a_template_without_an_end(folder, monkeypatch):
    monkeypatch.setattr(trust, "TRIAL_SECONDS", 0.5)
    path = folder / "chat_template.jinja"
    path.write_text(TOO_LONG + path.read_text())
    assert "TimeoutError: it took more than 0.5 s" in refuse(folder)


def test_another_thread_loads_as_well(folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(load_processor(str(folder))))
    thread.start()
    thread.join()
    assert Encoder(found[0]).encode([Message("user", ("hello",))])
