"""`tunedeck data`: what is printed, for people and for programs, and the exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.engine.preview import PreviewError
from core.profile import DEMO_DATA
from core.study.preview import Counted, Failed, Finding, Progress, Told
from tests.tui.fake_data import BEGAN, EXAMPLES, FakePreview
from tui.cli import main
from tui.commands import data as command

DEMO = str(DEMO_DATA.with_name("demo.toml"))


@pytest.fixture
def preview(monkeypatch: pytest.MonkeyPatch) -> FakePreview:
    fake = FakePreview()

    def start(asked: Any) -> FakePreview:
        fake.asked.append(asked)
        return fake

    monkeypatch.setattr(command, "Preview", start)
    return fake


def test_examples_lengths_and_warnings_as_plain_text(
    preview: FakePreview, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", DEMO]) == 0
    said = capsys.readouterr()
    assert "Example 1: questions.jsonl, row 1, 18 tokens, 5 with loss" in said.out
    assert "⟦An opening in something.<|im_end|>⟧↵" in said.out
    assert "57 (4.62 %) are cut at cutoff_len = 512" in said.out.replace("\n  ", " ")
    assert "warning: In 57 of 1,234 rows" in said.out
    assert "shown for" not in said.out, "rows of findings are named, not shown"
    assert "\x1b" not in said.out and "\u202e" not in said.out and said.err == ""


def test_words_and_bars_fit_a_narrow_terminal(
    preview: FakePreview, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["data", DEMO]) == 0
    said = capsys.readouterr().out
    lines = said[said.index("Lengths in tokens") :].splitlines()
    assert len(lines) > 10
    assert max(map(len, lines)) <= 60


def test_ascii_is_ascii(preview: FakePreview, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", DEMO, "--ascii", "--ids"]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and "[[An<102>|\\sopening<108>" in out


def test_a_terminal_gets_colours_in_place_of_brackets(
    preview: FakePreview, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["data", DEMO]) == 0
    out = capsys.readouterr().out
    assert "\x1b[32mAn opening in something.<|im_end|>\x1b[0m" in out and "⟦" not in out
    assert "\x1b[33m\\x1b\x1b[0m" in out, "an escape in the data is spelled out"
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["data", DEMO]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "⟦" in out


def test_json_is_for_programs(preview: FakePreview, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", DEMO, "--json"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    told = json.loads(out)
    assert told["ok"] is True and told["stage"] == "sft" and told["error"] is None
    tokens = told["examples"][0]["parts"][0]["tokens"]
    assert tokens[0] == {"text": "<|im_start|>", "ids": [112], "learnt": False, "special": True}
    assert told["examples"][3]["finding"] == "empty answer"
    assert told["counts"]["cut"] == 57 and told["counts"]["lengths"]["803"] == 17
    assert [f["kind"] for f in told["findings"]] == ["cut", "empty answer"]


@pytest.mark.parametrize("json_too", [False, True])
def test_broken_data_ends_with_1(
    preview: FakePreview, capsys: pytest.CaptureFixture[str], json_too: bool
) -> None:
    preview.told = (Progress("the rows are read"), Failed("x.jsonl, row 3: output is missing"))
    assert main(["data", DEMO, *["--json"] * json_too]) == 1
    said = capsys.readouterr()
    if json_too:
        assert json.loads(said.out)["error"] == "x.jsonl, row 3: output is missing"
    else:
        assert said.err == "tunedeck: demo: x.jsonl, row 3: output is missing\n"


def test_data_that_cannot_be_trained_on_ends_with_1(preview: FakePreview) -> None:
    error = Finding("nothing learnt", "error", "no token has loss", 3)
    preview.told = (BEGAN, *EXAMPLES, Counted(3, 3, {4: 3}, findings=(error,)))
    assert main(["data", DEMO]) == 1
    assert main(["data", DEMO, "--json"]) == 1


def test_a_process_that_dies_is_an_error(
    preview: FakePreview, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: FakePreview) -> Any:
        raise PreviewError("the data's process ended (signal 9)")
        yield

    monkeypatch.setattr(FakePreview, "__iter__", dies)
    assert main(["data", DEMO]) == 1
    assert "ended (signal 9)" in capsys.readouterr().err
    assert main(["data", DEMO, "--json"]) == 1
    assert "signal 9" in json.loads(capsys.readouterr().out)["error"]


def test_what_is_asked_for(preview: FakePreview) -> None:
    main(["data", DEMO])
    main(["data", DEMO, "--examples", "7", "--all", "--set", "data.cutoff_len=64"])
    main(["data", DEMO, "--row", "12"])
    first, second, third = preview.asked
    assert (first.examples, first.row, first.most, first.examine) == (3, None, 20_000, True)
    assert (second.examples, second.most) == (7, None)
    assert second.profile["data"]["cutoff_len"] == 64
    assert (third.row, third.examine) == (12, False)


@pytest.mark.parametrize(
    "wrong", [["--row", "0"], ["--examples", "x"], ["--row", "1", "--examples", "2"]]
)
def test_wrong_use_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", DEMO, *wrong])
    assert ended.value.code == 2


def test_a_key_that_is_not_there_ends_with_2(preview: FakePreview) -> None:
    assert main(["data", DEMO, "--set", "data.nothing=1"]) == 2
    assert preview.asked == []


def test_a_sample_says_so_and_how_to_see_all(
    preview: FakePreview, capsys: pytest.CaptureFixture[str]
) -> None:
    sample: tuple[Told, ...] = (BEGAN, Counted(20_000, 50_000, {4: 20_000}))
    preview.told = sample
    assert main(["data", DEMO]) == 0
    out = capsys.readouterr().out
    assert "of the first 20,000 of 50,000 rows" in out and "--all looks at every row" in out


def test_the_whole_command_on_the_demo(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", DEMO, "--examples", "1"]) == 0
    said = capsys.readouterr()
    assert "stage sft, template the tokenizer's own: 800 rows to train on" in said.out
    assert "None of the usual mistakes was found." in said.out


RECIPE = """
[profile]
name = "two"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
[[step]]
name = "first"
[[step]]
name = "second"
[step.data]
cutoff_len = 99
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "two.toml"
    path.write_text(RECIPE)
    return str(path)


def test_the_data_of_each_step_of_a_recipe(
    preview: FakePreview, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", recipe]) == 0
    out = capsys.readouterr().out
    assert out.index("step 1, first: stage sft") < out.index("step 2, second: stage sft")
    assert [asked.profile["data"]["cutoff_len"] for asked in preview.asked][1:] == [99]
    assert main(["data", recipe, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in told["steps"]] == ["first", "second"] and told["ok"]


def test_a_step_whose_data_is_broken_is_named(
    preview: FakePreview, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preview.told = (Failed("x.jsonl, row 3: output is missing"),)
    assert main(["data", recipe]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("x.jsonl")[0] for line in said] == [
        "tunedeck: step 1, first: ",
        "tunedeck: step 2, second: ",
    ]


def test_one_step_of_a_recipe(
    preview: FakePreview, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", recipe, "--step", "second"]) == 0
    assert "step 1" not in capsys.readouterr().out
    assert main(["data", recipe, "--step", "third"]) == 2
    assert "there are first, second" in capsys.readouterr().err
    assert main(["data", DEMO, "--step", "first"]) == 2
