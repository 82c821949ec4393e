"""Characters that matplotlib's own font lacks: drawn by an installed font, or told in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

ROOT = Path(__file__).parent.parent.parent
# Draws a timeline, bars and matrices with names, and data-prep's two figures.
DRAWING = """
import sys
import pandas as pd
from PIL import Image
from pixelis.cli.console import configure_logging
from pixelis.data.example import Example
from pixelis.data_prep.figures import difficulty_figure, examples_figure
from pixelis.figures import as_figure, confusions, outcome_bars
from pixelis.figures.chart import Panel, band, line, stack_panels

configure_logging()
name, folder = sys.argv[1:]
bands = [band(name, 0, 1, "#eeeeee", text=name), line(name, [(0, 0), (1, 1)], "#000000")]
answers = [{"task": name, "truth": name, "answer": name, "right": True}] * 2
example = Example(
    id="1", task=name, sample_type="positive", question=name, images=(Image.new("RGB", (9, 9)),),
    trajectory=(), conclusion="", answer=name, ground_truth=name, difficulty_score=0.5,
)
facts = {"task": [name], "sample_type": ["positive"], "difficulty": ["simple"], "score": [0.5]}
figures = [
    as_figure(stack_panels([Panel(bands, title=name, label=name)], 1)),
    as_figure(outcome_bars([{"group": name, "kind": name}])),
    as_figure(confusions(answers)),
    difficulty_figure(pd.DataFrame(facts), {}),
    examples_figure({"simple": [example]}),
]
for number, figure in enumerate(figures):
    figure.savefig(f"{folder}/{number}.png")
"""


def install(characters, family, path):
    """Make a font in which each of the characters is a triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 900)), pen.lineTo((900, 0)), pen.closePath()
    names = {f"glyph{number}": ord(c) for number, c in enumerate(characters)}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names])
    font.setupCharacterMap({code: name for name, code in names.items()})
    font.setupGlyf({name: pen.glyph() for name in (".notdef", *names)})
    font.setupHorizontalMetrics({name: (1000, 0) for name in (".notdef", *names)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


@pytest.fixture
def draw(tmp_path):
    """Draw names in a process whose user's fonts are in a folder; return lines and pictures."""

    def run(name, home):
        out = tmp_path / f"{home}-figures"
        out.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", DRAWING, name, str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(tmp_path / home)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        return done.stderr.splitlines(), [path.read_bytes() for path in sorted(out.iterdir())]

    return run


@pytest.mark.integration  # processes, because matplotlib looks for fonts once in each
@pytest.mark.parametrize("name", ["简单的问题", "सरल", "🦜🪐", "简单 🦜"])
def test_an_installed_font_draws_what_matplotlib_s_own_lacks(draw, tmp_path, name):
    (line,), boxes = draw(name, "without")
    assert line.startswith("warning: figures show boxes for characters that no installed font has;")
    fonts = tmp_path / "with" / "fonts"
    fonts.mkdir(parents=True)
    (fonts / "broken.ttf").write_bytes(b"\0\1\0\0 no font")
    emoji = {c for c in name if ord(c) > 0xFFFF}
    for family, characters in {"Test Sans": set(name) - emoji, "Test Emoji": emoji}.items():
        if characters:
            install(characters, family, fonts / f"{family}.ttf")
    lines, drawn = draw(name, "with")
    assert lines == []
    assert all(one != other for one, other in zip(boxes, drawn, strict=True))


@pytest.mark.integration
@pytest.mark.parametrize("name", ["سهل وصعب", "Größe μ ≥ 3", "tab\tand\u200b\ufe0f joiner"])
def test_what_needs_no_other_font_is_drawn_without_a_word(draw, name):
    assert draw(name, "without")[0] == []
