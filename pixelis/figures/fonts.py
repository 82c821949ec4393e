"""Installed fonts for characters that matplotlib's own font lacks: Chinese, emoji and others."""

import logging
import warnings
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

logger = logging.getLogger(__name__)


def fit_fonts(figure: Figure) -> None:
    """Let the texts of a figure use installed fonts for characters that their own font lacks.

    What no installed font has is drawn as boxes, and the first figure with such a character logs
    a line.
    """
    # matplotlib warns of every such character at every drawing, and of fonts without bold letters.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    texts = figure.findobj(Text)
    own = FT2Font(findfont(FontProperties()))
    characters = {character for text in texts for character in text.get_text()}
    lacking = {c for c in characters if c.isprintable() and not own.get_char_index(ord(c))}
    if lacking:
        families = _find_families("".join(sorted(lacking)))
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])


@cache
def _find_families(characters: str) -> list[str]:
    """Return the families of installed fonts that have the characters, as far as there are any."""
    families: list[str] = []
    lacking = set(characters)
    for path in sorted(findSystemFonts()):  # matplotlib's own list may be older than a font
        try:
            font = FT2Font(path)
            found = {c for c in lacking if font.get_char_index(ord(c))}
            if found:
                fontManager.addfont(path)
        except Exception:  # a broken file, or a font of bitmaps, which cannot be scaled
            continue
        if found:
            families.append(font.family_name)
            lacking -= found
        if not lacking:
            return families
    _log_lacking()
    return families


@cache
def _log_lacking() -> None:
    logger.warning(
        "figures show boxes for characters that no installed font has; install one that has them, "
        "such as Noto Sans CJK, Noto Sans Arabic or Noto Emoji"
    )
