"""Proofs of stages rm, dpo and kto: what they hold follows what their trainers do."""

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.dryrun import judged
from core.dryrun import prove as module
from core.dryrun.errors import CannotProve
from core.dryrun.fused_head import CHUNK
from core.dryrun.steps import run
from core.memory.forecast import Lengths

from .conftest import GPU, HOST, LENGTHS, LLAMA, ProveRun

RM = {"method__stage": "rm"}
DPO = {"method__stage": "dpo"}
KTO = {"method__stage": "kto"}
STAGES = {"rm": RM, "dpo": DPO, "kto": KTO}
FULL = {"method__finetuning_type": "full"}
FREEZE = {"method__finetuning_type": "freeze", "method__freeze_trainable_layers": 1}
FOUR_BITS = {"model__quantization_bit": 4}
ONE = {"train__per_device_train_batch_size": 1}


@pytest.mark.parametrize(
    "method", [{}, FULL, FREEZE, FOUR_BITS], ids=["lora", "full", "freeze", "qlora"]
)
@pytest.mark.parametrize("stage", STAGES)
def test_every_method_is_proven(prove_run: ProveRun, stage: str, method: dict[str, Any]) -> None:
    forecast = prove_run(lengths=Lengths(128, 64), **STAGES[stage], **method)
    assert forecast.tier == "proof" and forecast.notes == ()
    assert sum(forecast.parts.values()) == forecast.allocated
    assert set(forecast.moments) == {"load", "forward", "backward", "optimizer", "eval"}


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "orpo", "simpo"])
def test_every_loss_of_pairs_is_proven(prove_run: ProveRun, loss: str) -> None:
    assert prove_run(**DPO, alignment__pref_loss=loss).tier == "proof"


def test_answers_that_are_drawn_are_not_proven(prove_run: ProveRun) -> None:
    with pytest.raises(CannotProve, match="stage ppo is estimated"):
        prove_run(method__stage="ppo", alignment__reward_model="scores")


@pytest.mark.parametrize("settings", [{**RM}, {**DPO, **FULL}, {**KTO}], ids=["rm", "dpo", "kto"])
def test_the_second_update_is_written_as_it_would_run(
    prove_run: ProveRun, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    written = prove_run(**settings)
    monkeypatch.setattr(module, "run", functools.partial(run, in_full=True))
    ran = prove_run(**settings)
    assert abs(written.allocated - ran.allocated) <= 64 * 512
    assert (written.peak, written.peak_step) == (ran.peak, ran.peak_step)


def test_a_pair_is_two_rows(prove_run: ProveRun) -> None:
    pair = prove_run(**DPO, **ONE)
    single = prove_run(**KTO, train__per_device_train_batch_size=2)
    assert pair.moments["forward"] == pytest.approx(single.moments["forward"], rel=0.01)


def test_full_fine_tuning_is_held_to_a_second_model(prove_run: ProveRun) -> None:
    whole = prove_run(config={"hidden_size": 256}, **FULL).parts["weights"] // 2
    for stage in (DPO, KTO):
        held = prove_run(config={"hidden_size": 256}, **stage, **FULL)
        # The policy's weights are held in fp32, the reference's in bf16.
        assert held.parts["weights"] == pytest.approx(3 * whole, rel=0.01)
    alone = prove_run(config={"hidden_size": 256}, **DPO, **FULL, alignment__pref_loss="simpo")
    assert alone.parts["weights"] == pytest.approx(2 * whole, rel=0.01)


def test_layers_that_train_are_all_that_a_reference_beside_them_holds(prove_run: ProveRun) -> None:
    wide = {"hidden_size": 256, "num_hidden_layers": 4}
    without = prove_run(config=wide, **DPO, **FREEZE, alignment__pref_loss="simpo")
    held = prove_run(config=wide, **DPO, **FREEZE)
    # Two matrices of 256 × 256, two of 256 × 128, three of 256 × 128, in bf16.
    layer = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 128)
    assert held.parts["weights"] - without.parts["weights"] == pytest.approx(layer, rel=0.02)


def test_adapters_are_switched_off_for_the_reference_and_nothing_is_held(
    prove_run: ProveRun,
) -> None:
    with_one, without = (
        prove_run(**DPO, alignment__pref_loss=loss) for loss in ("sigmoid", "orpo")
    )
    assert with_one.parts["weights"] == without.parts["weights"]
    # Its pass comes before the policy's, whose activations are not there yet.
    assert with_one.moments["forward"] == pytest.approx(without.moments["forward"], rel=0.001)


def test_a_reference_that_is_named_is_read_of_its_own_config(
    prove_run: ProveRun, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({**LLAMA, "num_hidden_layers": 8}))
    named = {"alignment__ref_model": str(other)}
    own, eight = (prove_run(config={"num_hidden_layers": n}, **DPO) for n in (2, 8))
    larger = prove_run(**DPO, **named)
    both = own.parts["weights"] + eight.parts["weights"]
    assert larger.parts["weights"] == pytest.approx(both, rel=0.01)
    # Of its frozen weights the policy has some in common with it, or none.
    assert larger.tier == "estimate" and "reference" in larger.notes[0]
    assert prove_run(**DPO, **FULL, **named).tier == "proof"


def test_a_reward_model_has_a_score_in_place_of_its_vocabulary(prove_run: ProveRun) -> None:
    wide = {"vocab_size": 32000}
    answers, scores = prove_run(config=wide), prove_run(config=wide, **RM, **ONE)
    assert answers.parts["weights"] - scores.parts["weights"] == pytest.approx(
        2 * 32000 * 64, rel=0.01
    )
    assert scores.parts["logits"] == 0


def test_scores_of_answers_come_in_tiles(prove_run: ProveRun) -> None:
    few = prove_run(lengths=msgspec.structs.replace(LENGTHS, learnt=20), **DPO, **ONE)
    many = prove_run(lengths=LENGTHS, **DPO, **ONE)
    # Two rows of 10 tokens, or of all but one, in bf16.
    assert few.parts["logits"] == pytest.approx(2 * 10 * CHUNK * 2, rel=0.01)
    assert many.parts["logits"] == pytest.approx(2 * 127 * CHUNK * 2, rel=0.01)
    large = prove_run(lengths=LENGTHS, **KTO, train__per_device_train_batch_size=64)
    assert large.parts["logits"] == pytest.approx(4096 * CHUNK * 2, rel=0.02)


def test_the_cpu_scores_all_tokens_however_many_are_answers(prove_run: ProveRun) -> None:
    few = prove_run(target=HOST, lengths=msgspec.structs.replace(LENGTHS, learnt=20), **DPO)
    assert few.allocated == prove_run(target=HOST, lengths=LENGTHS, **DPO).allocated


@pytest.mark.parametrize(
    ("lengths", "mismatched"),
    [
        # A prompt of 63 tokens and another's answer of 20, and the same cut where the longest row ends.
        (Lengths(64, 512, learnt=20), [88, 512]),
        (Lengths(512, 64, learnt=100), [512, 128]),
        (Lengths(64, 64, learnt=64), [64, 64]),
        (Lengths(64, 72), [72, 72]),
    ],
)
def test_answers_of_other_rows_make_rows_longer_than_the_batch_s(
    prove_run: ProveRun,
    monkeypatch: pytest.MonkeyPatch,
    lengths: Lengths,
    mismatched: list[int],
) -> None:
    made: list[int] = []

    def ones(names: Any, rows: int, length: int) -> Any:
        made.append(length)
        return whole(names, rows, length)

    whole = judged.ones
    monkeypatch.setattr(judged, "ones", ones)
    prove_run(lengths=lengths, **KTO, train__gradient_accumulation_steps=1)
    # The batch of an update and its mismatched rows, then the same of an evaluation.
    assert made == [lengths.train, mismatched[0], lengths.evaluation, mismatched[1]]


def test_checkpoints_reach_these_stages_too(prove_run: ProveRun) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 64}
    for stage in (RM, DPO):
        plain = prove_run(config=wide, **stage)
        saved = prove_run(config=wide, **stage, train__gradient_checkpointing=True)
        assert saved.moments["backward"] < plain.moments["backward"]


def test_a_model_whose_layers_look_at_data_is_no_proof(prove_run: ProveRun) -> None:
    experts = {"model_type": "mixtral", "num_local_experts": 4}
    forecast = prove_run(config=experts, **DPO, method__lora_target="q_proj")
    assert forecast.tier == "estimate" and "experts" in forecast.notes[0]


def test_nothing_of_a_proof_stays_with_trl(prove_run: ProveRun) -> None:
    from trl.kernels import chunked_logprob as kernels

    before = dict(vars(kernels))
    prove_run(**DPO, target=GPU)
    assert vars(kernels) == before
