"""The weights that ship hold the figures on their card, which must not fall below the least ones.

A base that cannot order, recall or list leaves nothing for a curriculum to teach.
"""

import re

import pytest
import torch
from scipy.stats import binom
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from pixelis.data.encode import Encoder
from pixelis.models.load import EMBEDDED_DIR
from recipes.nano.measure import measure

# Least share of right answers, by the name of a score.
LEAST = {
    **dict.fromkeys(("caption", "attribute", "where"), 0.99),
    **{"order_2": 0.98, "order_3": 0.95, "order_4": 0.9},
    **{"order_area_2": 0.97, "order_area_3": 0.9, "order_area_4": 0.75},
    **dict.fromkeys(("recall", "placed", "copy", "listed"), 0.95),
    **dict.fromkeys((f"list_{count}" for count in range(1, 6)), 0.88),
}
# The start of a line of the card, and the scores in it in their order.
CARD = {
    "caption of": ["caption"],
    "colour and shape": ["attribute"],
    "row and column of a named": ["where"],
    "2, 3, 4 names": ["order_2", "order_3", "order_4"],
    "the same, of areas": ["order_area_2", "order_area_3", "order_area_4"],
    "the value of a name": ["recall"],
    "the rows or columns": ["placed"],
    "one to three texts": ["copy"],
    "a given list": ["listed"],
    "everything in the scene": [f"list_{count}" for count in range(1, 6)],
}
NUM_SCENES = 100
# Of a base at its least figures, one score in 10,000 is as low as what fails here.
RISK = 1e-4


def test_the_card_states_no_lower_figures():
    lines = (EMBEDDED_DIR / "README.md").read_text(encoding="utf-8").splitlines()
    for start, names in CARD.items():
        (line,) = [line for line in lines if line.startswith(f"| {start}")]
        figures = [float(figure) / 100 for figure in re.findall(r"([\d.]+)%", line)]
        assert len(figures) == len(names)
        for name, figure in zip(names, figures, strict=True):
            assert figure >= LEAST[name], name


@pytest.mark.integration
def test_the_weights_hold_them_on_scenes_measured_now():
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(EMBEDDED_DIR, dtype=torch.float32)
    encoder = Encoder(AutoProcessor.from_pretrained(EMBEDDED_DIR))
    scores = measure(model.eval(), encoder, NUM_SCENES)
    for name, least in LEAST.items():
        num = NUM_SCENES // 5 if name.startswith("list_") else NUM_SCENES
        assert binom.cdf(round(scores[name] * num), num, least) > RISK, (name, scores[name])
