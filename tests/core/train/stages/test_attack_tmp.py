import importlib.util,sys,pathlib
spec=importlib.util.spec_from_file_location("test_ppo_x", pathlib.Path(__file__).with_name("test_ppo.py")); m=importlib.util.module_from_spec(spec); sys.modules["test_ppo_x"]=m; spec.loader.exec_module(m)
from test_ppo_x import *
import pytest, shutil
def test_resume_other_epochs(run_ppo):
    p = run_ppo("p", ask=("paused",3), task={"save_model":True}, **SHORT)
    assert p.report.outcome=="paused"
    task={"attempt":2,"resume_from":p.report.checkpoint}
    r = run_ppo("p", task=task, **(SHORT|{"ppo_epochs":3}))
    print(r.report)
    r = run_ppo("p", task=task, **(SHORT|{"ppo_buffer_size":1}))
    print(r.report)
    assert 0
def test_one(run_ppo):
    r = run_ppo(max_new_tokens=1, per_device_train_batch_size=1, max_steps=4)
    print(r.report, [ (p.loss,p.grad_norm,p.more) for p in r.points]); assert 0
def test_nopad(run_ppo, policy, tmp_path):
    own = copied(policy, tmp_path/"own")
    t = PreTrainedTokenizerFast.from_pretrained(own); t.pad_token=None
    t.save_pretrained(own)
    changed(own/"config.json", pad_token_id=None)
    r = run_ppo(model_name_or_path=str(own), max_steps=60)
    print(r.report, measured(r,"reward")[-3:]); assert 0
def test_evalroom(run_ppo, gpt2, tmp_path):
    f = tmp_path/"e.jsonl"
    f.write_text(json.dumps({"instruction": "a b c d e f g h a b c d e", "input":"", "output":"a"})+"\n")
    r = run_ppo(model_name_or_path=str(gpt2), max_new_tokens=12, eval_dataset=str(f), eval_steps=1, max_steps=2)
    print(r.report); assert 0
def test_pissa(run_ppo):
    r = run_ppo(finetuning_type="lora", pissa_init=True, max_steps=2); print(r.report, measured(r,"kl")); assert 0
def test_stream(run_ppo):
    r = run_ppo(streaming=True, max_steps=2); print(r.report); assert 0
def test_range(run_ppo):
    r = run_ppo(task={"kind":"range"}, max_steps=6, ppo_epochs=2); print(r.report); assert 0
def test_stream(run_ppo):
    r = run_ppo(streaming=True, max_steps=2); print(r.report); assert 0
def test_group(run_ppo):
    r = run_ppo(group_by_length=True, max_steps=2); print(r.report); assert 0
def test_oneeval(run_ppo):
    r = run_ppo(val_size=1, eval_steps=1, max_steps=2, early_stopping_patience=1, save_best=True, max_new_tokens=1); print(r.report); assert 0
def test_plateau(run_ppo):
    r = run_ppo(val_size=4, eval_steps=1, max_steps=4, lr_scheduler_type="reduce_lr_on_plateau"); print(r.report); assert 0
def test_fp16(run_ppo):
    r = run_ppo(precision="fp16", max_steps=4); print(r.report); assert 0
def test_epochs(run_ppo):
    r = run_ppo(max_steps=None, num_train_epochs=1.5, per_device_train_batch_size=7, gradient_accumulation_steps=3, ppo_epochs=3, ppo_buffer_size=1); print(r.report); assert 0
