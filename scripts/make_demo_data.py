"""Makes the demo's instruction set and the one that the end-to-end test trains a real model on.

Usage, from the project's root (a few seconds; the two sets are about different questions):

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
from pathlib import Path

from scripts.demo_model import instructions, wordnet
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
    _write(options.demo, instructions.make_rows(source, count=880, seed=11))
    _write(options.test, instructions.make_rows(source, count=220, seed=12))
    return 0


def _write(path: Path, rows: list[instructions.Row]) -> None:
    lines = [json.dumps(row.as_dict(), ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    notice = path.with_suffix(".LICENCE.txt")
    notice.write_text(data_notice(path.name, len(rows), COMMAND), encoding="utf-8")
    print(f"{path}: {len(rows)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
