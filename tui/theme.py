"""The dashboard's colours: few and calm, far enough apart that 16 of them still tell states apart."""

from collections.abc import Mapping

from rich.style import Style
from textual.theme import Theme

COLOURS: Mapping[str, str] = {
    "text": "#d5dbe6",
    "bright": "#ffffff",
    "muted": "#8790a3",
    "line": "#414a5c",
    "primary": "#6cb0f5",
    "secondary": "#a3b1c9",
    "accent": "#c7a0f0",
    "success": "#7ecb8f",
    "warning": "#e8b864",
    "error": "#f07f7f",
}
"""By the names that the rest of the dashboard uses."""

BACKGROUND = "#11141b"
SURFACE = "#181d27"
PANEL = "#222938"
BAR_BACKGROUND = "#2a3345"

STYLES: Mapping[str, Style] = {name: Style(color=colour) for name, colour in COLOURS.items()}


def style(name: str, *, bold: bool = False) -> Style:
    """The style of a colour of the theme."""
    return STYLES[name] + Style(bold=True) if bold else STYLES[name]


def tunedeck_theme() -> Theme:
    """The theme as Textual wants it."""
    return Theme(
        name="tunedeck",
        primary=COLOURS["primary"],
        secondary=COLOURS["secondary"],
        accent=COLOURS["accent"],
        success=COLOURS["success"],
        warning=COLOURS["warning"],
        error=COLOURS["error"],
        foreground=COLOURS["text"],
        background=BACKGROUND,
        surface=SURFACE,
        panel=PANEL,
        dark=True,
        variables={
            "text-muted": COLOURS["muted"],
            "border": COLOURS["line"],
            "border-blurred": COLOURS["line"],
            "input-selection-background": "#6cb0f5 35%",
        },
    )
