"""Import of a user's own data: raw CoTA records and chat data become examples or rejections."""

from pixelis.data_prep.importing.convert import convert
from pixelis.data_prep.importing.detect import open_input
from pixelis.data_prep.importing.read import read_records
from pixelis.data_prep.importing.record import (
    FORMATS,
    REASONS,
    Input,
    Record,
    Rejection,
    count_by_reason,
)

__all__ = [
    "FORMATS",
    "REASONS",
    "Input",
    "Record",
    "Rejection",
    "convert",
    "count_by_reason",
    "open_input",
    "read_records",
]
