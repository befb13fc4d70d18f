"""A sampler without Optuna: proposes ever smaller learning rates, and misbehaves as its first argument (JSON) tells it.

`crash` (ends without an answer), `delay` (seconds), `hold` (waits while the file of this name exists), `empty` (the
space holds nothing else).
Each request is noted in the file that `log` names.
"""

import json
import sys
import time
from pathlib import Path

SCRIPT = json.loads(sys.argv[1])
REQUEST = json.load(sys.stdin)

if "log" in SCRIPT:
    with Path(SCRIPT["log"]).open("a") as log:
        log.write(
            json.dumps({"trials": REQUEST["trials"], "count": REQUEST.get("count", 1)}) + "\n"
        )
time.sleep(SCRIPT.get("delay", 0))
while "hold" in SCRIPT and Path(SCRIPT["hold"]).exists():
    time.sleep(0.02)
if SCRIPT.get("crash"):
    print("Traceback\nno sampler here", file=sys.stderr)
    sys.exit(3)
known = len(REQUEST["trials"])
count = 0 if SCRIPT.get("empty") else REQUEST.get("count", 1)
print(json.dumps({"points": [{"learning_rate": 1e-3 / (10 + known + i)} for i in range(count)]}))
