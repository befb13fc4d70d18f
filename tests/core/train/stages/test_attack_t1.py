import json
import pytest
from core.profile import ProfileError
def rows(f, n=24, kto=False, good=lambda n: bool(n%3), prompt="Say", same=False):
    f.write_text("".join(json.dumps({"instruction": f"{prompt} {i}", "input":"", "output": "hello "*(1+i%5)+str(i), "kto_tag": good(i)} if kto else {"instruction": f"{prompt} {i}","input":"","chosen":"hello "*(1+i%4), "rejected": "spider "*(1+i%3)})+"\n" for i in range(n)))
    return str(f)
def show(capsys, name, ran, fd):
    out = capsys.readouterr().out
    with capsys.disabled():
        r = ran.report
        print("\n##", name, r.outcome, r.step, r.loss, r.eval_loss, r.error)
        for p in ran.points[-3:]: print("   ", p.step, p.loss, p.eval_loss, p.more)
        for l in out.splitlines():
            if "rehears" in l or "good" in l or "dropped" in l: print("   |", l)
CASES = {
 "dpo-one": ("dpo", dict(n=1), dict(val_size=0.0, per_device_train_batch_size=1, gradient_accumulation_steps=1)),
 "dpo-one-eval": ("dpo", dict(n=3), dict(val_size=1, eval_steps=2)),
 "dpo-cut": ("dpo", dict(prompt="please "*60), dict(cutoff_len=16, val_size=2, eval_steps=2)),
 "kto-cut": ("kto", dict(prompt="please "*60), dict(cutoff_len=16, val_size=2, eval_steps=2)),
 "kto-one": ("kto", dict(n=1), dict(val_size=0.0)),
 "kto-one-eval": ("kto", dict(n=3), dict(val_size=1, eval_steps=2)),
 "kto-good": ("kto", dict(good=lambda n: True), dict(val_size=3, eval_steps=2)),
 "kto-bad": ("kto", dict(good=lambda n: False), dict(val_size=3, eval_steps=2)),
 "kto-bad-margin": ("kto", dict(good=lambda n: False), dict(val_size=3, eval_steps=2, rank_by="eval_reward_margin")),
 "kto-b1": ("kto", dict(), dict(val_size=3, eval_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=2)),
 "kto-stream": ("kto", dict(), dict(streaming=True, max_steps=8, val_size=3, eval_steps=2)),
 "dpo-stream": ("dpo", dict(), dict(streaming=True, max_steps=8, val_size=3, eval_steps=2)),
 "kto-plateau": ("kto", dict(), dict(val_size=3, eval_steps=1, lr_scheduler_type="reduce_lr_on_plateau", early_stopping_patience=1, max_steps=6)),
 "kto-range": ("kto", dict(), dict(task={"kind":"range","range_steps":12,"range_high":0.1}, val_size=0.0)),
 "kto-limit": ("kto", dict(), dict(memory__limit_gib=0.4)),
 "dpo-limit": ("dpo", dict(), dict(memory__limit_gib=0.4)),
}
@pytest.mark.parametrize("name", CASES)
def test_case(run_trial, tmp_path, capsys, name):
    stage, data, settings = CASES[name]
    f = rows(tmp_path/"d.jsonl", kto=stage=="kto", **data)
    try:
        ran = run_trial(**{"stage": stage, "dataset": f} | settings)
    except ProfileError as e:
        with capsys.disabled(): print("\n##", name, e)
        return
    show(capsys, name, ran, None)
