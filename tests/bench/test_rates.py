"""The bench of learning rates, on sweeps made for it."""

import math
from pathlib import Path

import pytest

from bench.search.rates import left_out, loss_at, main, ranked, read_cells, regret, size_class

CELL = {1e-4: 1.0, 3e-4: 0.5, 1e-3: 0.8}


def sweep(path: Path, models: dict[str, float]) -> Path:
    """A sweep whose models are best at a rate each, by a bowl over its logarithm."""
    rows = ["model,LR,LoRA Rank,Test NLL,Train NLL,Wall Time (min)"]
    for model, best in models.items():
        for rate in (4e-5, 1e-4, 3e-4, 1e-3):
            loss = 1 + 0.1 * math.log(rate / best) ** 2
            rows += [f"{model},{rate},{rank},{loss},{loss},1" for rank in (4, 16)]
    file = path / "sweep.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


def test_a_rate_between_two_is_read_between_them_and_none_outside() -> None:
    assert loss_at(CELL, 3e-4) == 0.5
    assert loss_at(CELL, math.sqrt(1e-4 * 3e-4)) == pytest.approx(0.75)
    assert loss_at(CELL, 5e-5) is None
    assert loss_at(CELL, 2e-3) is None


def test_regret_is_that_of_the_best_of_the_rates() -> None:
    assert regret(CELL, [1e-4]) == pytest.approx(0.5)
    assert regret(CELL, [1e-4, 1e-3]) == pytest.approx(0.3)
    assert regret(CELL, [3e-4, 1e-3]) == 0
    assert regret(CELL, [1e-5]) is None


def test_rates_are_ranked_by_what_each_adds() -> None:
    low = {4e-5: 0.9, 1e-4: 0.5, 3e-4: 0.6, 1e-3: 2.0}
    high = {4e-5: 2.0, 1e-4: 1.0, 3e-4: 0.6, 1e-3: 0.5}
    assert ranked([low, high, high]) == (3e-4, 1e-3, 1e-4)
    assert 1e-3 not in ranked([low, high, high], cap=5e-4)


def test_a_model_is_ranked_without_its_own_runs(tmp_path: Path) -> None:
    cells = read_cells(sweep(tmp_path, {"a-8B": 1e-4, "b-8B": 1e-3, "c-8B": 1e-3}))
    (first, *_), lists = left_out(cells, size_class)
    # Without its own runs the odd one out is measured at what the others want.
    assert first.values[0] == pytest.approx(0.1 * math.log(10) ** 2)
    assert {rates[0] for _, rates in lists} != {1e-4}


def test_it_prints_what_each_choice_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep(tmp_path, {"a-8B": 3e-4, "b-1B": 1e-3, "c-1B": 1e-3, "d-8B": 3e-4})
    assert main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 cells of 4 models, regret in nats"
    found = {line[:46].strip(): line[46:].split() for line in lines[2:7]}
    assert found["the portfolio's first 1"] == ["0.0000", "0.0000", "8"]
    assert float(found["always 0.0003"][0]) > 0.05
    assert float(found["always 0.0001"][0]) > float(found["always 0.0003"][0])


def test_a_file_of_another_kind_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main([str(tmp_path / "other.csv")]) == 2
    assert main([str(tmp_path / "none.csv")]) == 2
    assert "is no sweep" in capsys.readouterr().out
