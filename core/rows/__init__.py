"""How a row of a data file becomes what a stage learns from: alpaca, sharegpt, OpenAI messages and plain text.

Clients may import it, so that they say of the first rows (`first`) what training says of all. `files` reads data files;
`layout` decides how the rows of a data set are laid out, `pieces` reads what a row holds, `stages` makes of it what
the stage takes, and `row` says what that is.
"""

from core.rows.layout import EXPECTED, Format, Layout, detect, layout_of
from core.rows.row import (
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
from core.rows.stages import read_row

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
