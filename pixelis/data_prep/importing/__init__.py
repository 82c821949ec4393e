"""Import of a user's own data: CoTA records and chats are converted to examples or rejected.

`files` finds and reads the data files, `cota_format` and `chat_formats` read one record of a
format, `tools` maps the calls of other tools to our operations, `convert` makes it examples.
"""

from pixelis.data_prep.importing.convert import check_length, convert
from pixelis.data_prep.importing.cota_format import REPLAYS
from pixelis.data_prep.importing.files import FORMATS, Input, Record, open_input, read_records
from pixelis.data_prep.importing.tools import check_tools
from pixelis.data_prep.importing.values import RejectedError, Rejection

__all__ = [
    "FORMATS",
    "Input",
    "REPLAYS",
    "Record",
    "RejectedError",
    "Rejection",
    "check_length",
    "check_tools",
    "convert",
    "open_input",
    "read_records",
]
