"""A tiny model, tiny data and a way to run trials in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  (before any trial: one that is not quantised hides it from peft)
import datasets  # noqa: F401  (the same: one whose stage does not need it hides it from transformers)
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.profile import loads, save
from core.study.files import (
    METRICS_FILE,
    RUN_FILE,
    TASK_FILE,
    TRIAL_FILE,
    RunInfo,
    TrialTask,
    WorkerReport,
    read_record,
    write_record,
)
from core.study.metrics import Point, read_points
from core.train.data.templates import CHATML
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train

WORDS = (
    "What is the colour of the sky? The sky is blue. How many legs does a spider have? Eight. "
    "Name a fruit. An apple is a fruit. Say hello. Hello there, friend! 1 2 3 4 5 6 7 8 9 0 system user assistant"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([WORDS] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows of questions and answers of different lengths."""
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [
        {
            "instruction": f"Say {n} {'please ' * (n % 4)}",
            "input": "",
            "output": "hello " * (1 + n % 5) + str(n),
        }
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@dataclass(frozen=True)
class Ran:
    """What a trial left."""

    folder: Path
    report: WorkerReport

    @property
    def points(self) -> list[Point]:
        return read_points(self.folder / METRICS_FILE)

    @property
    def losses(self) -> list[tuple[int, float]]:
        return [(p.step, p.loss) for p in self.points if p.loss is not None]

    @property
    def run(self) -> RunInfo:
        run = read_record(self.folder / RUN_FILE, RunInfo)
        assert run is not None
        return run


class AfterStep(Requests):
    """Asks for an ending once the metrics of `folder` have reached `step`."""

    def __init__(self, folder: Path, step: int, outcome: Any) -> None:
        super().__init__()
        self._folder, self._step, self._asked = folder, step, outcome

    @property
    def outcome(self) -> Any:
        points = read_points(self._folder / METRICS_FILE)
        reached = points[-1].step if points else 0
        # The update that is ending is logged after it was asked for.
        return self._asked if reached >= self._step - 1 else None


RunTrial = Callable[..., Ran]


@pytest.fixture
def prepare(tmp_path: Path, model_dir: Path, dataset: Path) -> Callable[..., Path]:
    """Write a trial's folder; settings are full keys with dots replaced by two underscores, or keys alone."""

    def prepare(name: str = "trial", task: dict[str, Any] | None = None, **settings: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        base = (
            f'[model]\nmodel_name_or_path = "{model_dir}"\n[data]\ndataset = "{dataset}"\ncutoff_len = 64\n'
            "[train]\nmax_steps = 4\nper_device_train_batch_size = 2\ngradient_accumulation_steps = 2\n"
            "learning_rate = 0.01\n"
        )
        profile = loads(base).with_changes({k.replace("__", "."): v for k, v in settings.items()})
        save(profile, folder / TRIAL_FILE)
        given = {
            "trial": 1,
            "attempt": 1,
            "kind": "full",
            "budget": 1.0,
            "device": "cpu",
            "threads": 1,
        }
        write_record(folder / TASK_FILE, TrialTask(**(given | (task or {}))))
        return folder

    return prepare


@pytest.fixture
def run_trial(prepare: Callable[..., Path]) -> RunTrial:
    """Run a trial in this process; `ask` is (outcome, step): pause or stop it there."""

    def run(
        name: str = "trial",
        task: dict[str, Any] | None = None,
        ask: tuple[str, int] | None = None,
        **settings: Any,
    ) -> Ran:
        folder = prepare(name, task, **settings)
        requests = Requests() if ask is None else AfterStep(folder, ask[1], ask[0])
        read = read_record(folder / TASK_FILE, TrialTask)
        assert read is not None
        return Ran(folder, train(folder, read, requests, Stopwatch()))

    return run
