"""An adviser without dry runs: a run needs `gib_a_row` GiB for each row of its batch, as the profile's notes say.

The notes hold JSON under "advice": `gib_a_row`, `delay` (seconds), `hold` (waits while the study's folder has a file of
this name), `crash` (ends without a result), `different` (the only fix is another run), `estimate` (nothing is proven), `problem` (a sentence). Without it nothing can be proven.
Each job is noted in `asked.jsonl` in the study's folder.
"""

import json
import sys
import time
import tomllib
from pathlib import Path

GIB = 2**30
FILE = Path(sys.argv[1])
JOB = json.loads(FILE.read_text())
PROFILE = tomllib.loads(JOB["profile"])
SCRIPT = json.loads(PROFILE["profile"]["notes"]).get("advice")
BATCH = PROFILE["train"]["per_device_train_batch_size"]
ACCUMULATION = PROFILE["train"]["gradient_accumulation_steps"]


def forecast(rows):
    need = int(rows * SCRIPT["gib_a_row"] * GIB)
    return {
        "tier": "estimate" if SCRIPT.get("estimate") else "proof", "allocated": need, "reserved": need,
        "needed": need, "context": GIB // 2, "parts": {"activations": need}, "moments": {"backward": need},
        "peak": "backward",
    }  # fmt: skip


def capacity():
    target = JOB["target"]
    left = target["free"] - GIB // 2
    return left if target["limit"] is None else min(left, target["limit"])


def found(rows):
    changes = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": BATCH * ACCUMULATION // rows,
    }
    need = forecast(rows)
    option = {
        "changes": changes if rows != BATCH else {}, "text": f"batch {BATCH} → {rows}", "needed": need["needed"],
        "headroom": capacity() - need["needed"], "slowdown": [1.0, 1.2], "source": "fake",
        "numerics": "different" if SCRIPT.get("different") else "equivalent", "effect": "none",
        "proven": not SCRIPT.get("estimate"),
    }  # fmt: skip
    return {"option": option, "forecast": need}


def result():
    if SCRIPT is None or "problem" in SCRIPT:
        return {"problem": (SCRIPT or {}).get("problem", "there is no dry run here")}
    smaller = [rows for rows in range(BATCH, 0, -1) if BATCH * ACCUMULATION % rows == 0]
    fitting = [rows for rows in smaller if forecast(rows)["needed"] <= capacity()]
    if JOB["about"] == "fit":
        return {
            "fixes": [found(rows) for rows in fitting[:1]],
            "problem": "" if fitting else "none",
        }
    if JOB["about"] == "start" and forecast(BATCH)["needed"] <= capacity():
        return {"forecast": forecast(BATCH)}
    better = [rows for rows in fitting if rows < BATCH][:3]
    return {
        "forecast": forecast(BATCH),
        "summary": "activations hold the most",
        "fixes": [found(r) for r in better],
    }


with (Path(JOB["lengths"]).parent / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps([JOB["about"], int(FILE.parent.name), JOB["target"]["name"]]) + "\n")
time.sleep((SCRIPT or {}).get("delay", 0))
while (SCRIPT or {}).get("hold") and (Path(JOB["lengths"]).parent / "hold").exists():
    time.sleep(0.02)
if (SCRIPT or {}).get("crash"):
    print("Traceback\nIt fell over", file=sys.stderr)
    sys.exit(3)
temporary = FILE.with_name("advice.tmp")
temporary.write_text(json.dumps({"about": JOB["about"], "shape": JOB["shape"], **result()}))
temporary.replace(FILE.with_name("advice.json"))
