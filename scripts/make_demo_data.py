"""Makes the demo's data sets, one for each kind of stage, and the one that the end-to-end test trains a real model on.

Usage, from the project's root (a few seconds; the two instruction sets are about different questions):

    apt-get download wordnet-base && dpkg -x wordnet-base*.deb wordnet
    .venv/bin/python -m scripts.make_demo_data --text wordnet

The text is the Debian package wordnet-base, version 1:3.0-37 (WordNet 3.0, Princeton University);
it is read from the folder given and never downloaded from here.  The same text and seed give the
same files again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.demo_model import instructions, preferences, wordnet
from scripts.demo_model.licence import data_notice

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "scripts/make_demo_data.py"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the demo's instruction sets.")
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="DIR_OR_FILE")
    parser.add_argument("--demo", type=Path, default=ROOT / "core/assets/demo/instructions.jsonl")
    parser.add_argument("--test", type=Path, default=ROOT / "tests/data/instructions.jsonl")
    options = parser.parse_args()
    try:
        source = wordnet.load(wordnet.find_folder(options.text))
    except wordnet.SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _write_rows(options.demo, instructions.make_rows(source, count=880, seed=11))
    _write_rows(options.test, instructions.make_rows(source, count=220, seed=12))
    folder = options.demo.parent
    pairs = preferences.make_pairs(source, count=480, seed=13)
    _write_rows(folder / "pairs.jsonl", pairs, "pairs of answers")
    tags = preferences.make_tags(source, count=480, seed=14)
    _write_rows(folder / "tags.jsonl", tags, "answers, good and bad")
    lines = preferences.make_text(source, count=480, seed=15)
    _write(folder / "text.txt", lines, "lines of text")
    return 0


def _write_rows(
    path: Path,
    rows: Sequence[instructions.Row | preferences.Pair | preferences.Tag],
    what: str = "rows of instructions",
) -> None:
    _write(path, [json.dumps(row.as_dict(), ensure_ascii=False) for row in rows], what)


def _write(path: Path, lines: Sequence[str], what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    notice = path.with_suffix(".LICENCE.txt")
    notice.write_text(data_notice(path.name, len(lines), COMMAND, what), encoding="utf-8")
    print(f"{path}: {len(lines)} {what}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
