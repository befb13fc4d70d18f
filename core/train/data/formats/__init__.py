"""How a row of a data file becomes what a stage learns from: alpaca, sharegpt, OpenAI messages and plain text.

`layout` decides how the rows of a data set are laid out, `pieces` reads what a row holds, `stages` makes of it what
the stage takes, and `rows` says what that is.
"""

from core.train.data.formats.layout import EXPECTED, Format, Layout, detect, layout_of
from core.train.data.formats.rows import (
    AnyRow,
    Compared,
    Conversation,
    Judged,
    Question,
    Role,
    Row,
    Text,
    Turn,
)
from core.train.data.formats.stages import read_row

__all__ = [
    "EXPECTED",
    "AnyRow",
    "Compared",
    "Conversation",
    "Format",
    "Judged",
    "Layout",
    "Question",
    "Role",
    "Row",
    "Text",
    "Turn",
    "detect",
    "layout_of",
    "read_row",
]
