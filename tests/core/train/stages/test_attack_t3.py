"""MoE, halved batch, kill/resume etc."""
import pytest, torch
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM
@pytest.mark.parametrize("loss", ["sigmoid","orpo"])
def test_moe(run_trial, pairs, model_dir, tmp_path, loss, capsys):
    t = AutoTokenizer.from_pretrained(model_dir)
    torch.manual_seed(0)
    c = MixtralConfig(vocab_size=len(t), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256, output_router_logits=True, router_aux_loss_coef=1.0)
    MixtralForCausalLM(c).save_pretrained(tmp_path/"m"); t.save_pretrained(tmp_path/"m")
    ran = run_trial(stage="dpo", dataset=str(pairs), pref_loss=loss, model_name_or_path=str(tmp_path/"m"), finetuning_type="full", val_size=3, eval_steps=2)
    out = capsys.readouterr().out
    with capsys.disabled():
        print("\n##", loss, ran.report.outcome, ran.report.error, ran.losses, ran.report.eval_loss)
def test_half(run_trial, tags, capsys):
    s = dict(stage="kto", dataset=str(tags), val_size=4, eval_steps=2, max_steps=6, lora_dropout=0.0)
    p = run_trial("p", ask=("paused",3), per_device_train_batch_size=2, gradient_accumulation_steps=1, **s)
    w = run_trial("w", per_device_train_batch_size=2, gradient_accumulation_steps=1, **s)
    r = run_trial("p", task={"attempt":2,"resume_from":p.report.checkpoint}, per_device_train_batch_size=1, gradient_accumulation_steps=2, **s)
    capsys.readouterr()
    with capsys.disabled():
        print(r.report.outcome, r.report.error)
        for a in (w, r): print([(q.step,q.loss,q.more) for q in a.points if q.step>3])
