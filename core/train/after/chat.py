"""`tunedeck _chat`: a model that answers what it is asked, until its input ends."""

import queue
import time
from typing import Any

import msgspec

from core.study.after import (
    ChatRequest,
    Failure,
    Heard,
    Hush,
    Open,
    Piece,
    Ready,
    Said,
    Sampling,
    Say,
    Turn,
    Who,
)
from core.train.after import loading
from core.train.after.export import end_of_answer
from core.train.after.origin import Origin, base_source, find_origin
from core.train.after.process import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Line,
    failure_of,
    listen_to_signals,
    prepare,
    requests,
)
from core.train.after.speak import Answer, Text, converse, prompt_ids, tokens, with_defaults
from core.train.after.trained import Trained, import_libraries
from core.train.errors import ModelError, SettingsError


def main(argv: list[str]) -> int:
    """Load the model that the first request names and answer all others."""
    if argv:
        print("usage: tunedeck _chat", flush=True)
        return EXIT_USAGE
    line = Line()
    listen_to_signals()
    heard = requests(ChatRequest)
    first = heard.get()
    if not isinstance(first, Open):
        line.say(Failure("a chat begins with what to load", usage=True))
        return EXIT_USAGE
    prepare(first.device)
    try:
        talk = Talk(first, line)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        line.say(failure_of(error))
        return EXIT_FAILED
    line.say(talk.ready())
    return serve(talk, heard, line)


def serve(talk: "Talk", heard: "queue.SimpleQueue[Any]", line: Line) -> int:
    """Answer until the input ends."""
    while True:
        request = heard.get()
        if request is None:
            return EXIT_OK
        if isinstance(request, msgspec.DecodeError):
            line.say(Failure(f"this is no request: {request}", usage=True))
        if not isinstance(request, Say):
            continue
        try:
            over = talk.answer(request, heard)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except Exception as error:
            line.say(failure_of(error))
            continue
        line.say(Heard())
        if over:
            return EXIT_OK


class Talk:
    """A loaded model and what it needs to talk."""

    def __init__(self, request: Open, line: Line) -> None:
        """Load it.

        Raises:
            UsageError: it cannot be loaded, or only scores texts.
        """
        origin = find_origin(request.weights)
        if origin.kind == "reward model":
            raise ModelError(
                f"{origin.folder} is a reward model: it scores answers and gives none; `tunedeck eval` measures it"
            )
        self._line = line
        self._origin = origin
        line.progress("loading libraries")
        import_libraries(origin)
        line.progress("loading the model")
        self._trained = Trained(origin, request.device, request.dtype)
        source = base_source(origin) if origin.adapter is not None else None
        self._tokenizer = loading.load_tokenizer(origin, source)
        self._plain = origin.profile.method.stage == "pt" or not self._tokenizer.chat_template
        self._ends = end_ids(self._trained.model, self._tokenizer)
        self._default = usual_sampling(origin)

    @property
    def _context(self) -> int | None:
        found = getattr(
            self._trained.model.config.get_text_config(), "max_position_embeddings", None
        )
        return int(found) if found else None

    def ready(self) -> Ready:
        """What a client is told once it may ask."""
        import torch

        where = "CPU"
        if self._trained.device == "cuda":
            where = str(torch.cuda.get_device_name(0))
        notes: tuple[str, ...] = ()
        if self._plain:
            notes = ("there is no chat template for this model: it goes on with what you write",)
            if self._origin.profile.method.stage == "pt":
                notes = ("it was trained on plain text: it goes on with what you write",)
        return Ready(
            name=self._origin.base,
            device=where,
            dtype=loading.dtype_name(self._trained.model.dtype),
            speakers=("tuned", "base") if self._trained.has_base else ("tuned",),
            cost=self._trained.cost_of_base,
            sampling=self._default,
            context=self._context,
            notes=notes,
        )

    def answer(self, request: Say, heard: "queue.SimpleQueue[Any]") -> bool:
        """Answer a question; returns whether the input has ended meanwhile.

        Raises:
            UsageError: the conversation cannot be answered.
        """
        sampling = with_defaults(request.sampling, self._default)
        answers = [self._begin(who, turns, sampling) for who, turns in request.talks.items()]
        over = False

        def hushed() -> bool:
            nonlocal over
            found = False
            while not heard.empty():
                message = heard.get()
                over = over or message is None
                found = found or over or isinstance(message, Hush)
            return found

        with self._trained.computing():
            converse(
                answers,
                lambda answer, text: self._line.say(Piece(answer.who, text)),
                lambda answer: self._line.say(_said(answer)),
                hushed,
            )
        return over

    def _begin(self, who: Who, turns: tuple[Turn, ...], sampling: Sampling) -> Answer:
        if who == "base" and self._trained.cost_of_base:
            self._line.progress("loading the base model")
        speaker = self._trained.speaker(who)
        messages = [{"role": t.role, "content": t.text} for t in turns]
        ids = prompt_ids(self._tokenizer, messages, self._plain)
        if not ids:
            raise SettingsError("there is nothing to answer")
        room = self._context - len(ids) if self._context is not None else None
        if room is not None and room <= 0:
            raise SettingsError(
                f"the conversation has {len(ids):,} tokens, and the model was made for {self._context:,}: begin anew"
            )
        if room is not None and room < (sampling.max_new_tokens or 1):
            sampling = msgspec.structs.replace(sampling, max_new_tokens=room)
        answer = Answer(who, iter(()), speaker, Text(self._tokenizer))

        def ended() -> None:
            answer.end = "end"

        answer.steps = tokens(speaker, ids, sampling, self._ends, ended)
        return answer


def usual_sampling(origin: Origin) -> Sampling:
    """What the profile's [generation] says."""
    table = origin.profile.generation
    return Sampling(
        table.max_new_tokens,
        table.temperature,
        table.top_p,
        table.top_k,
        table.repetition_penalty,
    )


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: the model's, the tokenizer's own, and what the template ends a turn with."""
    config = getattr(model, "generation_config", None)
    known = getattr(config, "eos_token_id", None)
    several = known if isinstance(known, list) else [known]
    found = {*several, tokenizer.eos_token_id, end_of_answer(tokenizer)}
    return frozenset(i for i in found if i is not None)


def _said(answer: Answer) -> Said:
    return Said(
        answer.who,
        answer.text.whole(),
        answer.tokens,
        time.monotonic() - answer.began,
        answer.end or "length",
    )
