"""What clients say to the processes that work with a trained model, and what these answer: one JSON object a line.

`_export`, `_chat` and `_evaluate` (roles of tunedeck.py) read requests from their standard input and write replies to
their standard output. A process ends when its input does: whoever asked is gone.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
"""The numbers to hold weights in. `auto`: to export, those in which the base is stored; to chat, those of training."""
Device = Literal["cpu", "cuda"]
Who = Literal["tuned", "base"]
"""Which of the two models speaks or is measured: with the training's result, or as it was before."""


class Weights(msgspec.Struct, frozen=True):
    """Trained weights on the disk, and what is known of them."""

    folder: str
    """Absolute: an adapter or a whole model, as `output/` of a trial or one of its checkpoints holds it."""
    trial: str | None = None
    """The folder of the trial that made them, absolute: its `trial.toml` is their profile. None: nobody knows."""
    base: str | None = None
    """The model that an adapter belongs to, where it is to be another than the one that is recorded."""


class Sampling(msgspec.Struct, frozen=True):
    """How an answer is drawn; None is what the profile's [generation] says. `temperature` 0 takes the likeliest token
    each time."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


# Export ---------------------------------------------------------------------------------------------------------------


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """Make one model of a run's weights and their base, in `output`."""

    weights: Weights
    output: str
    """The folder to write, absolute. It is there whole or not at all."""
    dtype: Dtype = "auto"
    max_shard_size: str = "5GB"
    device: Device = "cpu"
    adapter_only: bool = False
    """Copy the adapter as it is, without the base."""
    overwrite: bool = False
    """Replace a folder that is not empty."""


class Check(msgspec.Struct, frozen=True):
    """One comparison of what was exported with what was trained, on a few prompts."""

    what: Literal["merged", "written"]
    """`merged`: in memory, after merging. `written`: loaded again from the files."""
    error: float
    """Root mean square of the logits' differences over that of the reference (each position's mean removed); of reward
    models of the scores'."""
    largest: float
    """The largest difference of a logit, over the same."""
    tolerance: float
    """What `error` may be at most."""
    agreement: float | None
    """The share of positions at which both find the same token likeliest; None of reward models."""
    tokens: int
    """Positions that were compared; of reward models scores."""

    @property
    def passed(self) -> bool:
        # NaN passes nothing.
        return self.error <= self.tolerance


class ExportReply(msgspec.Struct, frozen=True, kw_only=True, tag="exported"):
    """The model is in its folder."""

    output: str
    kind: Literal["model", "reward model", "adapter"]
    dtype: str
    """As "bf16"; of an adapter that of its weights."""
    parameters: int
    files: tuple[str, ...]
    bytes: int
    effect: float | None = None
    """How far training moved the logits, measured as `Check.error` is; None where the base was not at hand, and of
    reward models, whose base scores nothing."""
    checks: tuple[Check, ...] = ()
    serve: tuple[str, ...] = ()
    """Command lines that serve the model."""
    notes: tuple[str, ...] = ()
    """What a person should know of this model, as sentences."""


# Chat -----------------------------------------------------------------------------------------------------------------


class Turn(msgspec.Struct, frozen=True):
    """What somebody said."""

    role: Literal["system", "user", "assistant"]
    text: str


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Load a model to talk to: the first request of a chat."""

    weights: Weights
    device: Device = "cpu"
    dtype: Dtype = "auto"


class Say(msgspec.Struct, frozen=True, kw_only=True, tag="say"):
    """Answer a conversation. With several speakers they answer at the same time, a token each in turn."""

    talks: dict[Who, tuple[Turn, ...]]
    """The conversation of each speaker; the last turn is the user's."""
    sampling: Sampling = Sampling()


class Hush(msgspec.Struct, frozen=True, tag="hush"):
    """End the answers that are under way."""


ChatRequest = Open | Say | Hush


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded."""

    name: str
    device: str
    dtype: str
    speakers: tuple[Who, ...]
    """("tuned", "base") where the model before training is at hand."""
    cost: str = ""
    """What asking the base takes besides, as a sentence; empty where it is nothing."""
    sampling: Sampling = Sampling()
    """What is used where a question says nothing else."""
    context: int | None = None
    """Tokens that the model was made for."""
    notes: tuple[str, ...] = ()


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """A piece of an answer."""

    who: Who
    text: str


class Said(msgspec.Struct, frozen=True, tag="said"):
    """An answer is complete."""

    who: Who
    text: str
    """All of it."""
    tokens: int
    seconds: float
    end: Literal["end", "length", "hushed"]
    """`end`: the model ended its turn. `length`: the most tokens were reached. `hushed`: it was interrupted."""


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """Every answer to a question is complete."""


# Evaluation -----------------------------------------------------------------------------------------------------------


class EvaluateRequest(msgspec.Struct, frozen=True, kw_only=True, tag="evaluate"):
    """Measure a model on rows that it was not trained on."""

    weights: Weights
    data: tuple[str, ...] = ()
    """Data sets to take in place of the validation rows of the run, named as in data.dataset."""
    device: Device = "cpu"
    base: bool = False
    """Measure the model before training as well."""
    generate: bool = False
    """Let the model answer each row and compare the answers with the references."""
    references: str | None = None
    """A file of references, in place of the data's own answers."""
    output: str | None = None
    """The file that the answers are written to, JSON lines."""
    max_samples: int | None = None
    sampling: Sampling = Sampling(temperature=0.0)
    batch_size: int | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one model has come to."""

    who: Who
    metrics: dict[str, float | None]
    """By name, as training logs them; None for what is not finite."""
    seconds: float


class EvaluateReply(msgspec.Struct, frozen=True, kw_only=True, tag="evaluated"):
    """What was measured."""

    rows: int
    dropped: int
    """Rows that have nothing to learn within cutoff_len."""
    tokens: int
    data: str
    """What the rows are, in words."""
    results: tuple[Result, ...]
    output: str | None = None
    notes: tuple[str, ...] = ()


# All three ------------------------------------------------------------------------------------------------------------


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What is being done."""

    what: str
    """As "merging"."""
    done: int = 0
    total: int = 0
    """0: it is not known how much there is to do."""


class Failure(msgspec.Struct, frozen=True, tag="failed"):
    """The request was not met."""

    reason: str
    """A sentence for a person."""
    usage: bool = False
    """Whether the input is wrong, so that trying again changes nothing."""
    kept: str | None = None
    """What was written all the same, to be looked at."""


ChatReply = Ready | Piece | Said | Heard | Progress | Failure
Reply = ExportReply | EvaluateReply | ChatReply


UNFINISHED = ".unfinished"
"""A file in a folder that an export is still writing, or has given up: such a folder may be replaced."""


def partial_of(output: Path) -> Path:
    """The folder in which an export writes before it is whole: beside `output`, so that renaming it is one act."""
    return output.parent / f"{output.name}.partial"


def encode(message: msgspec.Struct) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_reply(line: bytes) -> Reply:
    """Raises msgspec.DecodeError or ValidationError for what is no reply."""
    reply: Reply = msgspec.json.decode(line, type=Reply)
    return reply


def decode_request(line: bytes, kind: Any) -> Any:
    """A request of one of the types in the union `kind`.

    Raises:
        msgspec.DecodeError: it is none; ValidationError is a kind of it.
    """
    return msgspec.json.decode(line, type=kind)
