"""Export a picture of the real dashboard over a study: `python scripts/screenshot.py STUDY -o FILE`.

The ending of FILE says whether an SVG or a PNG is made (a PNG needs cairosvg). Braille dots, blocks and
rules are drawn as shapes, as few fonts have them all.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from html import escape, unescape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tui.app import TunedeckApp

CELL_WIDTH, CELL_HEIGHT, ASCENT = 12.2, 24.4, 18.5
"""Of a cell in Textual's SVG, in its units; ASCENT is from a cell's top to the baseline."""
PNG_FONT = ("DejaVu Sans Mono", 20.26)
"""A font that this machine's cairo finds, and the size at which its cells are CELL_WIDTH wide."""
_TEXT = re.compile(
    r'<text class="([^"]+)" x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)"([^>]*)>([^<]*)</text>'
)
_WORD = re.compile(r"[^\s\xa0]+")
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit of a braille character."""
_RULES = {"─": "-", "│": "|", "┤": "-|", "├": "|-", "┼": "-|-", "└": "|-", "┌": "|-"}


async def picture(
    study: Path | None, columns: int, rows: int, keys: Sequence[str], ascii: bool
) -> str:
    """The dashboard over `study` after `keys` were typed, as SVG."""
    app = TunedeckApp(study=study, ascii=ascii)
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause(1.5)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.6)
        await pilot.pause(0.5)
        return app.export_screenshot(title="tunedeck")


def with_shapes(svg: str) -> str:
    """The picture with every character that fonts lack or draw with gaps as a shape."""
    return _TEXT.sub(lambda match: "".join(_drawn(match)), svg)


def _drawn(match: re.Match[str]) -> Iterator[str]:
    kind, rest, text = match.group(1), match.group(5), unescape(match.group(6))
    x, y = float(match.group(2)), float(match.group(3)) - ASCENT
    kept = ""
    for place, character in enumerate(text):
        shape = _shape(character, x + place * CELL_WIDTH, y, kind)
        kept += "\xa0" if shape else character
        yield shape
    # Word by word: a font whose cells are a little narrower would drift along the line.
    for word in _WORD.finditer(kept):
        yield (
            f'<text class="{kind}" x="{x + word.start() * CELL_WIDTH:.1f}" y="{match.group(3)}" '
            f'textLength="{len(word.group()) * CELL_WIDTH:.1f}"{rest}>{escape(word.group())}</text>'
        )


def _shape(character: str, x: float, y: float, kind: str) -> str:
    code = ord(character)
    if 0x2800 < code <= 0x28FF:
        return "".join(
            f'<circle class="{kind}" cx="{x + CELL_WIDTH * (0.27 + 0.46 * column):.2f}" '
            f'cy="{y + CELL_HEIGHT * (0.125 + 0.25 * row):.2f}" r="1.7"/>'
            for bit, (column, row) in enumerate(_DOTS)
            if (code - 0x2800) >> bit & 1
        )
    if 0x2581 <= code <= 0x2588:
        height = CELL_HEIGHT * (code - 0x2580) / 8
        return _rectangle(kind, x, y + CELL_HEIGHT - height, CELL_WIDTH + 0.3, height)
    if 0x2589 <= code <= 0x258F:
        width = CELL_WIDTH * (0x2590 - code) / 8
        return _rectangle(kind, x, y, width, CELL_HEIGHT)
    if character in _RULES:
        rule = _RULES[character]
        lines = ""
        if "-" in rule:
            start = x + (CELL_WIDTH / 2 if rule.startswith("|") else 0)
            end = x + (CELL_WIDTH / 2 if rule == "-|" else CELL_WIDTH + 0.3)
            lines += _rectangle(kind, start, y + CELL_HEIGHT / 2, end - start, 1.4)
        if "|" in rule:
            lines += _rectangle(kind, x + CELL_WIDTH / 2, y, 1.4, CELL_HEIGHT + 0.3)
        return lines
    return ""


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'
    )


def as_png(svg: str) -> bytes:
    """The picture as PNG, at its own size."""
    import cairosvg

    name, size = PNG_FONT
    plain = re.sub(r"@font-face \{[^}]*\}", "", svg).replace("Fira Code", name)
    plain = plain.replace("font-size: 20px", f"font-size: {size}px")
    return bytes(cairosvg.svg2png(bytestring=plain.encode()))


def main(argv: Sequence[str] | None = None) -> int:
    """Write one picture; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path, nargs="?", help="a study's folder (default: none open)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="an .svg or .png file")
    parser.add_argument("--size", default="120x36", help="columns x rows of the terminal")
    parser.add_argument("--keys", default="", help="keys to type first, by Textual's names: 5,down")
    parser.add_argument("--ascii", action="store_true")
    arguments = parser.parse_args(argv)
    columns, _, rows = arguments.size.partition("x")
    keys = [key for key in arguments.keys.split(",") if key]
    svg = with_shapes(
        asyncio.run(picture(arguments.study, int(columns), int(rows), keys, arguments.ascii))
    )
    output: Path = arguments.output
    if output.suffix == ".png":
        output.write_bytes(as_png(svg))
    else:
        output.write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
