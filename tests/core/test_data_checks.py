"""What does not go together in [data]: both values are told, before any data is read."""

from pathlib import Path

import pytest

from core.profile import ProfileError, loads

HEAD = '[model]\nmodel_name_or_path = "demo"\n'


def problems(data: str, stage: str = "sft", more: str = "") -> list[str]:
    text = f'{HEAD}[method]\nstage = "{stage}"\n[data]\n{data}\n{more}'
    try:
        loads(text)
    except ProfileError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("data", "stage", "words"),
    [
        ('dataset = ["a", "b"]\nmix_strategy = "interleave_under"\ninterleave_probs = [1.0]', "sft",
         ["data.interleave_probs", "1 weights", "dataset names 2: a, b"]),
        ('dataset = "a,b"\nmix_strategy = "interleave_over"\ninterleave_probs = [1.0, 0.0]', "sft",
         ["[1, 0]", "above 0"]),
        ('dataset = ["a", "b"]\nmix_strategy = "interleave_over"\ninterleave_probs = [1.0, nan]', "sft",
         ["data.interleave_probs", "nan"]),
        ('dataset = ["a", "b"]\ninterleave_probs = [1.0, 2.0]', "sft",
         ["data.interleave_probs", 'mix_strategy = "concat"', "interleave_under"]),
        ('dataset = "a.jsonl"\nstreaming = true\nval_size = 0', "sft", ["data.streaming", "train.max_steps"]),
        ('dataset = "a.jsonl"\nformat = "text"', "sft", ["data.format", '"text"', 'the stage is "sft"']),
        ('dataset = "a.jsonl"\nformat = "openai"', "pt", ["data.format", "openai", 'method.stage = "pt"']),
        ('dataset = "a.jsonl"\npacking = true', "dpo", ["data.packing", 'method.stage = "dpo"']),
        ('dataset = "a.jsonl"\npacking = true', "ppo", ["data.packing", 'method.stage = "ppo"']),
        ('dataset = "a.txt"', "kto", ["data.dataset", "a.txt", 'method.stage = "kto"']),
        ('dataset = "a.jsonl"\neval_dataset = "b.txt"', "sft", ["data.eval_dataset", "b.txt"]),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told_with_both_values(
    data: str, stage: str, words: list[str]
) -> None:
    told = "\n".join(problems(data, stage))
    for word in words:
        assert word in told


def test_a_stream_takes_rows_and_not_a_share_of_them() -> None:
    steps = "[train]\nmax_steps = 10\n"
    told = problems('dataset = "a.jsonl"\nstreaming = true\nval_size = 0.05', more=steps)
    assert len(told) == 1 and "data.val_size" in told[0] and "0.05 is a share" in told[0]
    fine = 'dataset = "a.jsonl"\nstreaming = true\n'
    for size in ("val_size = 100", "val_size = 0", 'eval_dataset = "b.jsonl"'):
        assert problems(fine + size, more=steps) == []


def test_the_length_of_a_training_on_a_stream_is_not_searched() -> None:
    more = "[train]\nmax_steps = 10\n[search.space]\nmax_steps = [10, 20]\n"
    told = problems('dataset = "a.jsonl"\nstreaming = true\nval_size = 0', more=more)
    assert any("search.space.max_steps" in line and "different rows" in line for line in told)


def test_what_goes_together_is_let_through() -> None:
    data = 'dataset = ["a", "b"]\nmix_strategy = "interleave_over"\ninterleave_probs = [2.0, 1.0]'
    assert problems(data) == []
    assert problems('dataset = "a.txt"\nformat = "text"', "pt") == []
    assert problems('dataset = "a.jsonl"\npacking = true') == []


def test_a_comma_in_the_name_of_a_file_is_no_border_between_two(tmp_path: Path) -> None:
    file = tmp_path / "a,b.jsonl"
    file.write_text("{}")
    data = f'dataset = ["{file}", "c"]\nmix_strategy = "interleave_under"\ninterleave_probs = [1.0, 2.0]'
    assert problems(data) == []
