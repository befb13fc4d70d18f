from core.engine.standing import best_trial, rank_trials, ranking, value_of_trial
from core.study.state import RungResult, StudyState, Trial


def state(*trials: Trial, rank_by: str = "eval_loss", direction: str = "min") -> StudyState:
    return StudyState(
        created=1.0,
        rank_by=rank_by,
        direction=direction,  # type: ignore[arg-type]
        trials={t.number: t for t in trials},
    )


def done(number: int, value: float, **more: object) -> Trial:
    return Trial(number, {"learning_rate": 1e-4}, status="completed", value=value, **more)  # type: ignore[arg-type]


def order(made: StudyState) -> list[int]:
    return [r.trial for r in ranking(made)]


def test_the_value_of_the_studys_metric_and_its_direction_decide() -> None:
    one, two = done(1, 0.7), done(2, 0.9)
    assert order(state(one, two, rank_by="eval_accuracy", direction="max")) == [2, 1]
    assert order(state(one, two, rank_by="eval_loss")) == [1, 2]


def test_studies_of_earlier_versions_are_ranked_by_their_losses() -> None:
    old = Trial(1, {}, status="completed", eval_loss=2.0, loss=1.0)
    new = Trial(2, {}, status="completed", eval_loss=1.9, loss=1.5)
    assert order(state(old, new)) == [2, 1]
    assert order(state(old, new, rank_by="loss")) == [1, 2]
    assert value_of_trial(old, "eval_accuracy") is None


def test_confirmations_count_in_what_they_confirm_and_have_no_place_of_their_own() -> None:
    made = state(
        done(1, 2.0), done(2, 2.1), done(3, 2.6, source="confirm", parent=1), done(4, 2.1, source="confirm", parent=2)
    )  # fmt: skip
    ranked = ranking(made)
    assert {r.trial for r in ranked} == {1, 2}
    best = best_trial(made)
    assert best is not None and best.number in (1, 2)
    assert next(r for r in ranked if r.trial == 1).value == 2.3


def test_of_equal_shares_of_rows_the_lower_loss_is_better_where_losses_compare() -> None:
    def tried(number: int, rate: float, beta: float, loss: float) -> Trial:
        changes = {"learning_rate": rate, "pref_beta": beta}
        return Trial(number, changes, status="completed", value=0.6, eval_loss=loss)

    def accuracy(*trials: Trial) -> list[int]:
        return order(state(*trials, rank_by="eval_reward_accuracy", direction="max"))

    assert accuracy(tried(1, 1e-4, 0.1, 0.69), tried(2, 1e-3, 0.1, 0.66)) == [2, 1]
    assert accuracy(tried(1, 1e-4, 0.1, 0.69), tried(2, 1e-3, 0.3, 0.66)) == [1, 2]
    # One without a place changes no order: the dashboard ranks those that have ended alone.
    running = Trial(3, {"learning_rate": 1e-2, "pref_beta": 0.3}, status="running")
    ranked = accuracy(tried(1, 1e-4, 0.1, 0.69), tried(2, 1e-3, 0.1, 0.66), running)
    assert ranked == [2, 1, 3]


def test_a_dropped_trial_shows_what_it_had_at_its_rung() -> None:
    rungs = (RungResult(0.1, 3, 2.7), RungResult(0.3, 9, 2.5))
    dropped = Trial(2, {}, status="pruned", value=2.4, rungs=rungs)
    _, ranked = ranking(state(done(1, 2.0), dropped))
    assert (ranked.value, ranked.share, ranked.reason) == (2.5, 0.3, "dropped at 30 %")


def test_range_tests_and_full_trainings_do_not_compete() -> None:
    made = state(done(1, 2.0), done(2, 1.0, kind="full"), done(3, 0.5, kind="range"))
    assert order(made) == [1]
    assert [r.trial for r in rank_trials(made.trials.values(), "eval_loss", "min")] == [1]


def test_two_thousand_trials_are_ranked() -> None:
    trials = [done(n, 2.0 + (n * 7919 % 2000) / 1000) for n in range(1, 2001)]
    ranked = ranking(state(*trials))
    assert len(ranked) == 2000 and ranked[0].value is not None and ranked[0].value < 2.01
