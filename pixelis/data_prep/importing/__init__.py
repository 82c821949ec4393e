"""Import of a user's own data: CoTA records and chats are converted to examples or rejected.

`files` finds and reads the data files, `cota_format`, `chat_formats` and `chat_rounds` read one
record of a format, `convert` makes it examples.
"""

from pixelis.data_prep.importing.convert import convert
from pixelis.data_prep.importing.files import open_input, read_records
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
