"""The search for memory fixes, in a world whose memory is known."""

from collections.abc import Sequence
from typing import Any

import pytest

from core.memory.fixes import MOST_PROOFS, Advice, Fix, Prove, fastest, find_fixes, fit_batch
from core.memory.forecast import Forecast
from core.memory.prover import ProofError
from core.memory.remedies.candidates import Candidates, Question
from core.memory.remedies.lattice import SAME, tightening
from core.profile import Profile
from tests.core.memory.fake_memory import LENGTHS, SHAPE, World, gpu, profile

ESTIMATES = object()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World().install(monkeypatch)


def ask(
    world: World,
    asked: Profile,
    gib: float,
    *,
    crashed: bool = True,
    estimates: bool = False,
    **more: Any,
) -> Advice:
    prove: Prove | None = None if estimates else world.prove
    return find_fixes(asked, SHAPE, gpu(gib), LENGTHS, prove, guard=0.03, crashed=crashed, **more)


def made(asked: Profile, fix: Fix) -> Profile:
    return asked.with_changes(fix.changes)


def test_fixes_fit_keep_the_effective_batch_and_are_proven(world: World) -> None:
    asked = profile()
    advice = ask(world, asked, 40)
    assert advice.reproduced is True
    assert advice.problem == ""
    assert len(advice.fixes) == 3
    for fix in advice.fixes:
        changed = made(asked, fix)
        assert changed.effective_batch() == 16
        true = world.forecast(changed, LENGTHS).needed
        assert fix.forecast.needed == true
        assert true * 1.03 <= 40 * 2**30
        assert fix.headroom == 40 * 2**30 - true
        assert fix.proven
        assert fix.source
        assert 0 < fix.slowdown[0] <= fix.slowdown[1]


def test_each_fix_is_another_idea_and_the_cheapest_comes_first(world: World) -> None:
    advice = ask(world, profile(), 40)
    ideas = [frozenset(fix.changes) for fix in advice.fixes]
    assert len(set(ideas)) == len(ideas)
    assert not any(earlier <= later for i, earlier in enumerate(ideas) for later in ideas[i + 1 :])
    assert advice.fixes[0].numerics == "equivalent"


def test_one_change_is_proposed_where_one_is_enough(world: World) -> None:
    advice = ask(world, profile(), 62)
    assert advice.fixes[0].changes in (
        {"loss_chunk_tokens": 1024},
        {"gradient_checkpointing": True, "gradient_checkpointing_every": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    )
    for fix in advice.fixes:
        assert len({name.split("_")[0] for name in fix.changes}) <= 2


def test_what_the_fix_does_to_the_result_is_said(world: World) -> None:
    world.activations = world.logits = 0.1
    advice = ask(world, profile(), 12)
    assert advice.fixes
    for fix in advice.fixes:
        assert fix.changes["quantization_bit"] in (4, 8)
        assert fix.numerics == "different"
        assert "rounded" in fix.effect
    assert advice.dominant == "weights"
    assert "Weights dominate (16.0 of " in advice.summary
    assert "quantising them helps" in advice.summary


def test_only_equivalent_fixes_when_so_asked(world: World) -> None:
    advice = ask(world, profile(), 30, only_equivalent=True)
    assert advice.fixes
    assert all(fix.numerics == "equivalent" and fix.effect == SAME for fix in advice.fixes)


def test_one_of_the_fixes_leaves_the_result_as_it_is_where_any_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the one that is applied unasked."""
    asked = profile(method={"finetuning_type": "full"})
    world = World(states=32, gradients=4).install(monkeypatch)
    for estimates in (False, True):
        advice = ask(world, asked, 80, estimates=estimates)
        assert [fix.numerics for fix in advice.fixes].count("equivalent") >= 1
        assert len(advice.fixes) == 3
        assert advice.tried <= MOST_PROOFS


def test_many_changes_where_few_are_not_enough(world: World) -> None:
    advice = ask(world, profile(method={"finetuning_type": "full"}), 5)
    assert len(advice.fixes) == 1
    assert len(advice.fixes[0].changes) >= 5
    assert advice.fixes[0].proven


def test_nothing_is_offered_where_nothing_fits(world: World) -> None:
    advice = ask(world, profile(), 2)
    assert advice.fixes == ()
    assert not advice.fits
    assert advice.reproduced is True
    assert advice.tried <= MOST_PROOFS


@pytest.mark.parametrize("error", [0.85, 0.95, 1.0, 1.05, 1.15])
@pytest.mark.parametrize("gib", [20, 24, 40, 60])
def test_a_wrong_closed_form_costs_proofs_and_no_truth(
    error: float, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(estimate_error=error).install(monkeypatch)
    advice = ask(world, profile(), gib)
    assert advice.fixes
    assert advice.tried == len(world.proven) <= MOST_PROOFS
    for fix in advice.fixes:
        assert world.forecast(made(profile(), fix), LENGTHS).needed * 1.03 <= gib * 2**30


def test_dry_runs_come_in_pairs(world: World) -> None:
    batches: list[int] = []

    def prove(profiles: Sequence[Profile]) -> Sequence[Forecast | ProofError]:
        batches.append(len(profiles))
        return world.prove(profiles)

    find_fixes(profile(), SHAPE, gpu(30), LENGTHS, prove, guard=0.03, crashed=True)
    assert batches
    assert max(batches) == 2


def test_a_crash_that_is_not_shown_gets_no_fix(world: World) -> None:
    advice = ask(world, profile(), 100)
    assert advice.reproduced is False
    assert advice.fixes == ()
    assert "does not show the crash" in advice.problem
    assert "64." in advice.problem or "65." in advice.problem, "the figures are said"


def test_a_crash_inside_of_the_guard_band_counts_as_shown(world: World) -> None:
    needed = world.forecast(profile(), LENGTHS).needed / 2**30
    assert ask(world, profile(), needed * 1.02).reproduced is True
    assert ask(world, profile(), needed * 1.04).reproduced is False


def test_a_profile_that_fits_needs_no_fix(world: World) -> None:
    advice = ask(world, profile(), 100, crashed=False)
    assert advice.fits
    assert advice.fixes == ()
    assert advice.reproduced is None
    assert advice.problem == ""


def test_where_nothing_can_be_proven_estimates_are_offered_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(impossible="the model needs code of its own").install(monkeypatch)
    advice = ask(world, profile(), 40)
    assert advice.problem == "the model needs code of its own"
    assert advice.reproduced is None
    assert len(advice.fixes) == 3
    assert not any(fix.proven for fix in advice.fixes)
    assert len(world.proven) <= 2, "what cannot be proven is not tried again and again"
    same = ask(world, profile(), 40, estimates=True)
    assert [fix.changes for fix in same.fixes] == [fix.changes for fix in advice.fixes]


def test_an_estimate_that_does_not_show_the_crash_proposes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(impossible="no").install(monkeypatch)
    advice = ask(world, profile(), 100)
    assert advice.fixes == ()
    assert advice.reproduced is False


def test_a_dry_run_with_blind_spots_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tier="estimate").install(monkeypatch)
    advice = ask(world, profile(), 40)
    assert advice.problem
    assert advice.reproduced is None
    assert advice.fixes
    assert not any(fix.proven for fix in advice.fixes)
    assert len(world.proven) > 2, "it is the better estimate all the same"


def test_a_change_that_the_worker_refuses_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(refuses=("train.loss_chunk_tokens", "train.gradient_checkpointing"))
    world.install(monkeypatch)
    advice = ask(world, profile(), 40)
    assert advice.fixes
    for fix in advice.fixes:
        assert not {"loss_chunk_tokens", "gradient_checkpointing"} & set(fix.changes)
        assert fix.proven


def test_accumulation_in_full_fine_tuning_is_offered_only_with_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gradients that stay alive between batches can take more than a smaller batch saves."""
    asked = profile(
        method={"finetuning_type": "full"},
        train={"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1},
    )
    world = World(gradients=8.0).install(monkeypatch)
    half = asked.with_changes({"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1})
    assert world.forecast(half, LENGTHS).needed > 0
    for estimates in (False, True):
        advice = ask(world, asked, 80, estimates=estimates)
        assert advice.fixes
        for fix in advice.fixes:
            assert world.forecast(made(asked, fix), LENGTHS).needed * 1.03 <= 80 * 2**30
            if estimates:
                assert "per_device_train_batch_size" not in fix.changes
    assert "keep gradients alive" not in ask(world, asked, 80).summary


def test_what_the_search_varies_stays_where_there_is_another_way(world: World) -> None:
    asked = profile(
        search={
            "space": {"gradient_checkpointing": [True, False], "loss_chunk_tokens": [512, 1024]}
        }
    )
    advice = ask(world, asked, 40)
    assert advice.fixes
    for fix in advice.fixes:
        assert not {"gradient_checkpointing", "loss_chunk_tokens"} & set(fix.changes)


def test_what_the_search_varies_gives_way_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(activations=0.1, logits=0.1, states=0.0).install(monkeypatch)
    asked = profile(search={"space": {"quantization_bit": [8, 4]}})
    advice = ask(world, asked, 12)
    assert advice.fixes
    assert all("quantization_bit" in fix.changes for fix in advice.fixes)


def test_the_summary_names_what_helps_and_what_barely_would(world: World) -> None:
    world.weights = 4.0
    summary = ask(world, profile(), 40).summary
    assert summary == (
        "Activations dominate (32.0 of 53.5 GiB): a smaller micro-batch or checkpointing helps; "
        "quantising the weights (4.0 GiB) barely would."
    )


def test_the_fastest_way_is_found_for_a_profile_that_fits(world: World) -> None:
    asked = profile(train={"gradient_checkpointing": True})
    fix = fastest(asked, SHAPE, gpu(80), LENGTHS, world.prove, guard=0.03)
    assert fix is not None
    changed = made(asked, fix)
    assert not changed.train.gradient_checkpointing
    assert fix.slowdown[1] < 1
    assert fix.proven
    assert fix.numerics == "equivalent"
    assert world.forecast(changed, LENGTHS).needed * 1.03 <= 80 * 2**30


def test_what_is_known_of_the_profile_is_not_run_again(world: World) -> None:
    asked = profile(train={"gradient_checkpointing": True})
    advice = ask(world, asked, 80, crashed=False)
    assert advice.fits
    assert world.proven == [asked], "with room to spare no fix is looked for"
    fix = fastest(asked, SHAPE, gpu(80), LENGTHS, world.prove, guard=0.03, now=advice.forecast)
    assert fix is not None
    assert world.proven.count(asked) == 1


def test_checkpointing_is_given_up_for_a_smaller_batch_where_that_is_faster(world: World) -> None:
    asked = profile(train={"gradient_checkpointing": True})
    fix = fastest(asked, SHAPE, gpu(45), LENGTHS, world.prove, guard=0.03)
    assert fix is not None
    changed = made(asked, fix)
    assert changed.train.per_device_train_batch_size < 8
    assert changed.effective_batch() == 16


def test_a_profile_that_is_the_fastest_stays(world: World) -> None:
    asked = profile(
        train={"optim": "adamw_torch_fused", "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    )  # fmt: skip
    assert fastest(asked, SHAPE, gpu(500), LENGTHS, world.prove, guard=0.03) is None


@pytest.mark.parametrize("error", [0.85, 1.0, 1.15, 2.5])
@pytest.mark.parametrize(("gib", "batch"), [(30, 1), (31, 2), (45, 4), (70, 8), (130, 16)])
def test_the_largest_batch_that_fits_is_chosen(
    error: float, gib: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(estimate_error=error).install(monkeypatch)
    fix = fit_batch(profile(), SHAPE, gpu(gib), LENGTHS, world.prove, guard=0.03)
    assert fix is not None
    changed = made(profile(), fix)
    assert changed.train.per_device_train_batch_size == batch
    assert changed.effective_batch() == 16
    assert fix.proven
    assert (fix.changes == {}) == (batch == 8)
    assert len(world.proven) == len({p.train.per_device_train_batch_size for p in world.proven})
    assert len(world.proven) <= MOST_PROOFS


def test_no_batch_is_chosen_where_not_even_one_row_fits(world: World) -> None:
    assert fit_batch(profile(), SHAPE, gpu(20), LENGTHS, world.prove, guard=0.03) is None


def test_a_batch_is_chosen_by_estimates_where_nothing_can_be_proven(world: World) -> None:
    fix = fit_batch(profile(), SHAPE, gpu(45), LENGTHS, None, guard=0.03)
    assert fix is not None
    assert made(profile(), fix).train.per_device_train_batch_size == 4
    assert not fix.proven


def test_the_closed_form_is_not_asked_more_often_than_the_search_needs(world: World) -> None:
    ask(world, profile(), 40)
    assert world.estimates < 1000


def test_what_is_not_needed_is_left_out_of_a_combination(world: World) -> None:
    question = Question(profile(), SHAPE, gpu(40), LENGTHS, 0.03)
    axes = tightening(question.profile, SHAPE, question.target, LENGTHS)
    candidates = Candidates(question, axes)
    for candidate in candidates.first(20):
        for move in candidate.moves:
            fewer = [m for m in candidate.moves if m is not move]
            changed = question.profile.with_changes(
                {k: v for m in fewer for k, v in m.changes.items()}
            )
            assert not question.fit(question.estimate(changed)).fits


# Several GPUs ---------------------------------------------------------------------------------------------------


def test_more_gpus_are_offered_as_an_estimate_where_there_are_some(world: World) -> None:
    world.states, world.activations, world.logits = 30.0, 0.5, 0.1
    asked = profile(
        method={"finetuning_type": "full"},
        train={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16},
    )

    def on(gpus: int) -> list[Fix]:
        target = gpu(34, gpus=gpus)
        advice = find_fixes(
            asked, SHAPE, target, LENGTHS, world.prove, guard=0.03, crashed=True, want=6
        )
        return [fix for fix in advice.fixes if "gpus_per_trial" in fix.changes]

    assert on(1) == []
    fixes = on(4)
    assert any(fix.numerics == "equivalent" for fix in fixes)
    for fix in fixes:
        assert not fix.proven
        assert made(asked, fix).effective_batch() == 16
        assert "the trial takes" in fix.effect and fix.source
    assert all(proven.resources.gpus_per_trial == 1 for proven in world.proven)


def test_a_fix_on_the_gpu_that_the_trial_has_is_looked_for_beside_more_gpus(world: World) -> None:
    advice = find_fixes(
        profile(), SHAPE, gpu(40, gpus=8), LENGTHS, world.prove, guard=0.03, crashed=True, want=1
    )
    (fix,) = advice.fixes
    assert "gpus_per_trial" not in fix.changes and fix.numerics == "equivalent"


def test_gpus_that_hold_copies_are_told_to_share(world: World) -> None:
    world.states, world.activations, world.logits = 30.0, 0.5, 0.1
    asked = profile(
        method={"finetuning_type": "full"},
        train={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16},
        resources={"gpus_per_trial": 2},
    )
    advice = find_fixes(
        asked, SHAPE, gpu(34, gpus=2), LENGTHS, world.prove, guard=0.03, crashed=True, want=6
    )
    found = [fix for fix in advice.fixes if "sharding" in fix.changes]
    assert found and all("gpus_per_trial" not in fix.changes for fix in found)
    assert any(fix.numerics == "equivalent" for fix in found)
    assert not any(fix.proven for fix in found)
    assert all(made(asked, fix).effective_batch() == 32 for fix in found)
