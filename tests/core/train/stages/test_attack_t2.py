import pytest, importlib.util, sys, pathlib
from core.profile import ProfileError
spec=importlib.util.spec_from_file_location("t1x", pathlib.Path(__file__).with_name("test_attack_t1.py")); m=importlib.util.module_from_spec(spec); sys.modules["t1x"]=m; spec.loader.exec_module(m)
CASES = {
 "kto-stream": ("kto", dict(), dict(streaming=True, task={"full_rows":32}, max_steps=8, val_size=3, eval_steps=2)),
 "kto-stream-cache": ("kto", dict(), dict(streaming=True, task={"full_rows":32, "cache":"../cache"}, max_steps=8, val_size=3, eval_steps=2)),
 "dpo-stream": ("dpo", dict(), dict(streaming=True, task={"full_rows":32}, max_steps=8, val_size=3, eval_steps=2)),
 "kto-big-eval": ("kto", dict(), dict(val_size=5, per_device_eval_batch_size=64, eval_steps=2, group_by_length=True)),
 "kto-early": ("kto", dict(), dict(val_size=5, save_best=2, early_stopping_patience=2, eval_steps=1, task={"save_model":True})),
 "dpo-noeval": ("dpo", dict(), dict(val_size=0.0, early_stopping_patience=2)),
 "dpo-orpo-bf16": ("dpo", dict(), dict(val_size=3, pref_loss="orpo", precision="pure_bf16", finetuning_type="full")),
 "dpo-rank-loss": ("dpo", dict(), dict(val_size=3, rank_by="eval_reward_margin", eval_steps=2, early_stopping_patience=1)),
 "kto-rank-kl": ("kto", dict(), dict(val_size=3, rank_by="kl", eval_steps=2)),
}
@pytest.mark.parametrize("name", CASES)
def test_case(run_trial, tmp_path, capsys, name):
    stage, data, settings = CASES[name]
    f = m.rows(tmp_path/"d.jsonl", kto=stage=="kto", **data)
    try:
        ran = run_trial(**{"stage": stage, "dataset": f} | settings)
    except ProfileError as e:
        with capsys.disabled(): print("\n##", name, e)
        return
    m.show(capsys, name, ran, None)
