"""PPO where the right answer is known, and everything that a run of it must keep."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from core.profile import loads
from core.train.ppo.scoring import find_reward_model, load_scorer

Run = Callable[..., Any]

WORDS = ["<pad>", "</s>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h", "gold"]
GOLD = WORDS.index("gold")
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", chat_template=TEMPLATE
    )


def config(**more: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        eos_token_id=1, pad_token_id=0, bos_token_id=None, **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of twelve words that says any of them at random."""
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    LlamaForCausalLM(config(initializer_range=0.15)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that gives 1 to what ends with the word gold, and 0 to all else."""
    folder = tmp_path_factory.mktemp("judge")
    model = LlamaForSequenceClassification(config(num_labels=1))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
        # What is left of a token at the top is its own embedding, of length √32 after the last norm.
        words = model.model.embed_tokens.weight
        words.zero_()
        words[:, 1] = 1.0
        words[GOLD] = 0.0
        words[GOLD, 0] = 1.0
        model.score.weight.zero_()
        model.score.weight[0, 0] = 32**-0.5
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "rows.jsonl"
    asked = [" ".join(WORDS[3 + (n + k) % 8] for k in range(1 + n % 3)) for n in range(40)]
    rows = [{"instruction": text, "input": "", "output": "a"} for text in asked]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def run_ppo(run_trial: Run, policy: Path, judge: Path, prompts: Path) -> Run:
    def run(name: str = "trial", **settings: Any) -> Any:
        given = {
            "model_name_or_path": str(policy), "stage": "ppo", "finetuning_type": "full",
            "reward_model": str(judge), "dataset": str(prompts), "cutoff_len": 16,
            "max_new_tokens": 2, "learning_rate": 3e-3, "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 1, "ppo_epochs": 4, "ppo_kl_coef": 0.05, "max_steps": 60,
            "lr_scheduler_type": "constant", "warmup_ratio": 0.0,
        }  # fmt: skip
        return run_trial(name, **(given | settings))

    return run


METHODS = [
    {},
    {"finetuning_type": "lora", "lora_rank": 8, "learning_rate": 2e-2},
    {"finetuning_type": "freeze", "freeze_trainable_layers": 2, "learning_rate": 2e-2},
]
NAMES = ["full", "lora", "freeze"]


def measured(ran: Any, name: str) -> list[float]:
    return [p.more[name] for p in ran.points if p.more and name in p.more]


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_a_policy_learns_to_end_with_the_word_that_is_paid_for(
    run_ppo: Run, policy: Path, method: dict[str, Any]
) -> None:
    ran = run_ppo(task={"save_model": True}, **method, val_size=8, eval_steps=20)
    assert ran.report.outcome == "completed", ran.report
    rewards, kls = measured(ran, "reward"), measured(ran, "kl")
    assert rewards[0] < 0.2 and sum(rewards[-4:]) / 4 > 0.8, "of at most 1"
    assert measured(ran, "eval_reward")[-1] > 0.8
    # Where it says nothing but gold, it is about ln 12 nats off in the last word.
    assert abs(kls[0]) < 1e-4 and 1 < kls[-1] < 10 and 1 < measured(ran, "eval_kl")[-1] < 10
    entropies = measured(ran, "entropy")
    assert entropies[0] > 2 > entropies[-1] > 0
    assert all(0 <= share <= 1 for share in measured(ran, "clip_fraction"))
    assert measured(ran, "value_loss")[-1] < max(measured(ran, "value_loss"))
    words = tokenizer()("a b c", return_tensors="pt").input_ids
    answers = saved(ran, policy).generate(words, max_new_tokens=2, do_sample=False)
    assert answers[0, -1] == GOLD


def saved(ran: Any, policy: Path) -> Any:
    """What the trial has saved, as anyone would load it."""
    output = ran.folder / "output"
    if not (output / "adapter_config.json").is_file():
        model, info = LlamaForCausalLM.from_pretrained(output, output_loading_info=True)
        assert not info["unexpected_keys"] and not info["missing_keys"]
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(policy), output)


SHORT = {
    "max_steps": 12, "ppo_epochs": 2, "ppo_buffer_size": 2, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2, "val_size": 8, "eval_steps": 4, "ppo_score_norm": True,
}  # fmt: skip
"""Three rounds of four updates, on 32 prompts: the third begins a new epoch."""


@pytest.mark.parametrize(
    ("method", "step"),
    [(METHODS[0], 3), (METHODS[0], 4), (METHODS[1], 3)],
    ids=["full-3", "full-4", "lora-3"],
)
def test_a_pause_inside_of_a_round_or_at_its_end_changes_nothing(
    run_ppo: Run, method: dict[str, Any], step: int
) -> None:
    given = SHORT | method
    whole = run_ppo("whole", task={"save_model": True}, **given)
    assert whole.report.outcome == "completed", whole.report
    paused = run_ppo("paused", task={"save_model": True}, ask=("paused", step), **given)
    assert (paused.report.outcome, paused.report.step) == ("paused", step)
    task = {"save_model": True, "attempt": 2, "resume_from": paused.report.checkpoint}
    resumed = run_ppo("paused", task=task, **given)
    assert resumed.report.outcome == "completed", resumed.report
    found = [(p.step, p.loss, p.eval_loss, p.grad_norm, p.more) for p in resumed.points]
    assert found == [(p.step, p.loss, p.eval_loss, p.grad_norm, p.more) for p in whole.points]
    name = "adapter_model" if "lora" in method.values() else "model"
    weights = [(r.folder / "output" / f"{name}.safetensors").read_bytes() for r in (whole, resumed)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("key", ["ppo_epochs", "ppo_buffer_size"])
def test_it_does_not_go_on_with_other_rounds(run_ppo: Run, key: str) -> None:
    paused = run_ppo("paused", ask=("paused", 3), **SHORT)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    report = run_ppo("paused", task=task, **(SHORT | {key: 3})).report
    assert report.usage_error and f"alignment.{key} 2 → 3" in report.error


def test_how_an_update_is_put_into_batches_changes_next_to_nothing(run_ppo: Run) -> None:
    settings = {"max_steps": 4, "per_device_eval_batch_size": 8, "ppo_epochs": 2}
    runs = [
        run_ppo(
            f"{rows}x{times}", **settings,
            per_device_train_batch_size=rows, gradient_accumulation_steps=times,
        )
        for rows, times in ((8, 1), (2, 4), (3, 3))
    ]  # fmt: skip
    assert all(ran.report.outcome == "completed" for ran in runs)
    one, parts, _ = runs
    assert [p.loss for p in parts.points] == pytest.approx([p.loss for p in one.points], abs=1e-5)
    for name in ("reward", "kl", "entropy", "clip_fraction", "value_loss"):
        assert measured(parts, name) == pytest.approx(measured(one, name), abs=1e-4)


def test_evaluations_always_draw_the_same(run_ppo: Run) -> None:
    """A policy that does not move gets the same evaluation every time, and other answers in each round."""
    ran = run_ppo(val_size=8, eval_steps=1, max_steps=4, learning_rate=1e-12, ppo_epochs=1)
    rewards = measured(ran, "eval_reward")
    assert len(rewards) == 4 and len(set(rewards)) == 1
    assert len(set(measured(ran, "entropy"))) == 4


def test_the_kl_penalty_holds_the_policy_back(run_ppo: Run) -> None:
    free = run_ppo("free", max_steps=24, ppo_kl_coef=0.0)
    held = run_ppo("held", max_steps=24, ppo_kl_coef=5.0)
    assert measured(held, "kl")[-1] < measured(free, "kl")[-1] / 2


def test_whitened_rewards_and_a_named_reference_train(
    run_ppo: Run, policy: Path, tmp_path: Path
) -> None:
    method = {"finetuning_type": "lora", "max_steps": 4}
    plain = run_ppo("plain", **method)
    named = run_ppo("named", **method, ref_model=str(copied(policy, tmp_path / "copy")))
    assert [p.loss for p in named.points] == [p.loss for p in plain.points]
    white = run_ppo("white", **method, ppo_whiten_rewards=True)
    assert white.report.outcome == "completed" and white.losses != plain.losses


def test_nothing_is_drawn_as_the_model_s_own_generation_config_asks_for(
    run_ppo: Run, policy: Path, tmp_path: Path
) -> None:
    """A top_k of 1 in it would make every answer the likeliest one."""
    own = copied(policy, tmp_path / "own")
    asks = {"do_sample": True, "top_k": 1, "repetition_penalty": 9.0, "eos_token_id": GOLD}
    (own / "generation_config.json").write_text(json.dumps(asks))
    plain = run_ppo("plain", max_steps=2)
    asked = run_ppo("asked", max_steps=2, model_name_or_path=str(own))
    assert [p.loss for p in asked.points] == [p.loss for p in plain.points]
    cut = run_ppo("cut", max_steps=2, top_k=1)
    assert measured(cut, "entropy") != measured(plain, "entropy")


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def changed(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.fixture
def misfits(policy: Path, judge: Path, tmp_path: Path) -> dict[str, str]:
    """What is no reward model for the policy, and what has to be said of it."""
    two, other, bare = (copied(judge, tmp_path / name) for name in ("two", "other", "bare"))
    changed(two / "config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    words = tokenizer()
    words.add_tokens(["more"])
    words.save_pretrained(other)
    changed(bare / "config.json", vocab_size=5)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    return {
        str(tmp_path / "nowhere"): "there is no",
        str(policy / "config.json"): "is a file",
        str(copied(policy, tmp_path / "headless")): "has no score head: it is a LlamaForCausalLM",
        str(two): "gives 2 numbers",
        str(other): f"has other tokens than {policy}",
        str(bare): f"knows 5 tokens and comes without a tokenizer, and {policy}",
    }


def test_a_reward_model_that_does_not_fit_is_refused_before_anything_is_loaded(
    run_ppo: Run, misfits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.stages import ppo

    def loads_nothing(*arguments: Any) -> None:
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr(ppo, "load_unprepared", loads_nothing)
    for number, (name, says) in enumerate(misfits.items()):
        report = run_ppo(f"{number}", reward_model=name).report
        assert report.outcome == "failed" and report.usage_error, report
        assert name in report.error and says in report.error, report.error


def test_an_adapter_without_a_score_head_is_no_reward_model(run_ppo: Run) -> None:
    tuned = run_ppo("tuned", task={"save_model": True}, finetuning_type="lora", max_steps=1)
    report = run_ppo("again", reward_model=str(tuned.folder / "output")).report
    assert report.usage_error and "an adapter without a score head" in report.error
    assert "CAUSAL_LM" in report.error and 'stage = "rm"' in report.error


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"finetuning_type": "lora", "quantization_bit": 4},
        {"finetuning_type": "lora", "use_dora": True},
        {"finetuning_type": "lora", "loraplus_lr_ratio": 4.0},
        {"finetuning_type": "lora", "additional_target": "lm_head"},
        {"precision": "bf16"},
        {"precision": "pure_bf16"},
        {"optim": "adafactor"},
    ],
    ids=lambda settings: "-".join(f"{v}" for v in settings.values()),
)
def test_it_goes_with_what_other_stages_go_with(run_ppo: Run, settings: dict[str, Any]) -> None:
    ran = run_ppo(max_steps=4, ppo_epochs=2, per_device_train_batch_size=8, **settings)
    assert ran.report.outcome == "completed", ran.report
    # The first pass over answers finds them as they were drawn: nothing is clipped.
    assert measured(ran, "clip_fraction")[0] == measured(ran, "clip_fraction")[2] == 0
    assert abs(measured(ran, "kl")[0]) < 0.05


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with learnt positions, and with dropout, which its config asks for."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.3,
            embd_pdrop=0.3, attn_pdrop=0.3, bos_token_id=1, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer().save_pretrained(folder)
    return folder


def test_a_policy_with_dropout_of_its_own_learns_from_what_it_drew(
    run_ppo: Run, gpt2: Path
) -> None:
    ran = run_ppo(model_name_or_path=str(gpt2), max_steps=2, per_device_eval_batch_size=3)
    assert ran.report.outcome == "completed", ran.report
    assert measured(ran, "clip_fraction")[0] == 0 and abs(measured(ran, "kl")[0]) < 1e-4


def test_answers_that_have_no_room_are_refused(run_ppo: Run, gpt2: Path) -> None:
    report = run_ppo(model_name_or_path=str(gpt2), max_new_tokens=14).report
    assert report.usage_error and "takes at most 16 tokens; prompts have up to 3" in report.error
    assert "generation.max_new_tokens" in report.error


def test_answers_to_what_is_evaluated_need_room_too(
    run_ppo: Run, gpt2: Path, tmp_path: Path
) -> None:
    file = tmp_path / "long.jsonl"
    row = {"instruction": " ".join(["a"] * 12), "input": "", "output": "a"}
    file.write_text(json.dumps(row) + "\n")
    given = {"eval_dataset": str(file), "eval_steps": 1, "max_new_tokens": 8}
    report = run_ppo(model_name_or_path=str(gpt2), **given).report
    assert report.usage_error and "takes at most 16 tokens; prompts have up to 12" in report.error


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that has learnt ten positions, and its own token to fill up with."""
    folder = tmp_path_factory.mktemp("narrow")
    sizes = {"vocab_size": len(WORDS), "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 10}
    shape = GPT2Config(**sizes, num_labels=1, pad_token_id=2, eos_token_id=1, bos_token_id=1)
    torch.manual_seed(0)
    GPT2ForSequenceClassification(shape).save_pretrained(folder)
    words = tokenizer()
    words.chat_template = TEMPLATE.replace("content'] }}", "content'] }} e")
    words.save_pretrained(folder)
    return folder


def test_the_reward_model_needs_room_too(run_ppo: Run, narrow: Path) -> None:
    report = run_ppo(reward_model=str(narrow), max_new_tokens=8).report
    assert (
        report.usage_error and f"alignment.reward_model: {narrow} takes at most 10" in report.error
    )


def test_another_chat_template_than_the_reward_model_s_is_told(
    run_ppo: Run, narrow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = run_ppo("own", max_steps=1)
    assert own.report.outcome == "completed" and "chat template" not in capsys.readouterr().out
    other = run_ppo("other", max_steps=1, reward_model=str(narrow))
    assert other.report.outcome == "completed", other.report
    assert (
        f"the reward model {narrow} was trained with another chat template"
        in capsys.readouterr().out
    )


def test_a_reward_model_is_filled_up_with_the_token_that_it_knows(
    policy: Path, narrow: Path
) -> None:
    table = loads(f'[model]\nmodel_name_or_path = "{policy}"\n[data]\ndataset = "demo"\n').model
    found = find_reward_model(str(narrow), str(policy), tokenizer(), table, pad=0)
    scorer = load_scorer(found, table, torch.float32, "cpu", LlamaForCausalLM(config()))
    # Only a token that is not its own <pad> (here <unk>) may be the last of a row.
    rows = [torch.tensor([3, 4, 0]), torch.tensor([3, 4]), torch.tensor([3, 4, 5, 6, 0])]
    alone = [float(scorer.scores([row])[0]) for row in rows]
    assert scorer.scores(rows).tolist() == pytest.approx(alone, abs=1e-6)
    assert alone[0] != alone[1]


def test_a_stop_ends_a_round(run_ppo: Run) -> None:
    ran = run_ppo(ask=("stopped", 3), max_steps=20, ppo_epochs=1)
    assert ran.report.outcome == "stopped" and 2 <= ran.report.step < 20


@pytest.mark.parametrize(
    "method",
    [*METHODS, {"finetuning_type": "lora", "additional_target": "embed_tokens"}],
    ids=[*NAMES, "lora and words"],
)
def test_in_mixed_precision_a_policy_begins_without_any_divergence(
    run_ppo: Run, policy: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    """Policy, reference and reward model multiply in bf16, and add up in the same numbers."""
    halved = tmp_path / "halved"
    shutil.copytree(policy, halved)
    LlamaForCausalLM.from_pretrained(policy, dtype=torch.bfloat16).save_pretrained(halved)
    settings = {"precision": "bf16", "max_steps": 1, "learning_rate": 1e-30, "val_size": 4}
    ran = run_ppo(**method | settings, model_name_or_path=str(halved))
    assert ran.report.outcome == "completed", ran.report
    assert measured(ran, "kl") == [0.0] and measured(ran, "eval_kl") == [0.0]
