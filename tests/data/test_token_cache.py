"""By what the tokens on disk go: anything that would make others of the same data."""

import copy
import json

import pytest
from tokenizers import AddedToken

from pixelis.data.cache import tokens_key
from pixelis.data.encode import Encoder
from pixelis.models.load import load_processor
from pixelis.models.vision import PositionRule

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
    again = dict(reversed(DATA.items()))
    assert build_key(rule) == build_key(rule, data=again) == build_key(PositionRule(NANO))
    json.dumps(rule.facts)


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
