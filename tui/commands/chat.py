"""`tunedeck chat`: talk to a run in the terminal, or through a pipe, a line for a question."""

import argparse
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from core.engine.after import AfterError, Chat
from core.engine.borrowing import borrowed
from core.engine.runs import find_run
from core.study.after import Open, Piece, Progress, Said, Sampling, Say, Turn, Who
from tui.columns import GAP, Column, Columns
from tui.commands.after import ProgressLine, failed, tell
from tui.harmless import harmless

LEAST_COLUMN = 36
"""Cells of a column in which an answer can still be read: two of them side by side need 74."""
MOST_INTERRUPTS = 3
"""So many times Ctrl-C during one answer leave the program: then the model does not listen."""
HELP = """\
/new             begin anew
/system TEXT     what the model is told before anything (without TEXT: nothing); begins anew
/compare         let the base model answer as well, or no more
/help            this
/quit            leave (or Ctrl-D)
A line that ends with a backslash goes on in the next. Ctrl-C interrupts an answer."""
_NAMES: dict[Who, str] = {"tuned": "tuned", "base": "base"}


def chat(arguments: argparse.Namespace) -> int:
    """Talk until the input ends."""
    run = find_run(arguments.run_name, arguments.trial, arguments.base_model)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        with borrowed(arguments.device) as place:
            tell(place.note)
            with ProgressLine() as line:
                talk = Chat(
                    Open(weights=run.weights, device=place.device, dtype=arguments.dtype),
                    line.show,
                    place.environment,
                )
            with talk:
                desk = Desk(talk, sampling_of(arguments), sys.stdout, terminal=terminal)
                desk.system = arguments.system or ""
                desk.greet(run.text)
                if arguments.compare:
                    desk.command("/compare")
                return desk.run(questions(terminal))
    except AfterError as error:
        return failed(error, False)


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """What the command line says of how answers are drawn."""
    return Sampling(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )


def questions(terminal: bool) -> Iterator[str]:
    """What a person types, or the lines of a pipe; a backslash at its end joins a line with the next."""
    parts: list[str] = []
    if terminal:
        # Gives input() its editing keys and its history.
        import readline  # noqa: F401
    while True:
        try:
            line = input("... " if parts else "> ") if terminal else sys.stdin.readline()
        except EOFError:
            break
        except KeyboardInterrupt:
            if not terminal:
                raise
            parts = []
            print("\n(Ctrl-D or /quit leaves)")
            continue
        if not terminal and not line:
            break
        line = line.rstrip("\r\n")
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        yield "\n".join([*parts, line])
        parts = []
    if parts:
        yield "\n".join(parts)


@dataclass
class Exchange:
    """A question and what was answered."""

    question: str
    answers: dict[Who, str] = field(default_factory=dict)

    def answer_to(self, who: Who) -> str:
        """What a speaker said; where it was not asked, what the other one did."""
        return self.answers.get(who) or next(iter(self.answers.values()), "")


class Desk:
    """The conversation as a person has it."""

    def __init__(
        self, talk: Chat, sampling: Sampling, out: TextIO, *, terminal: bool, width: int = 0
    ) -> None:
        """`width` is the terminal's where it is not to be asked (0)."""
        self._talk = talk
        self._sampling = sampling
        self._out = out
        self._terminal = terminal
        self._width = width
        self.system = ""
        self.comparing = False
        self.exchanges: list[Exchange] = []

    def greet(self, run: str) -> None:
        """Say who is there; into a pipe go answers alone."""
        ready = self._talk.ready
        for note in ready.notes:
            tell(note)
        if self._terminal:
            self._print(
                f"{harmless(run)}, on {ready.device} in {ready.dtype}. /help says what there is."
            )

    def run(self, lines: Iterator[str]) -> int:
        """Answer each line; returns the exit code."""
        code = 0
        for line in lines:
            text = line.strip()
            if not text:
                continue
            if text.startswith("/") and text.split()[0] in _COMMANDS:
                if not self.command(text):
                    return code
                continue
            try:
                self.ask(_writable(text))
            except AfterError as error:
                # The model is still there: it may be asked something else.
                code = failed(error, False)
                if not self._talk.alive:
                    return code
        if self._terminal:
            self._print("")
        return code

    def command(self, text: str) -> bool:
        """Carry out a command; False ends the conversation."""
        name, _, rest = text.partition(" ")
        match name:
            case "/quit" | "/exit":
                return False
            case "/new":
                self.exchanges = []
                self._note("a new conversation")
            case "/system":
                self.system, self.exchanges = _writable(rest.strip()), []
                self._note("a new conversation with this system text" if rest else "no system text")
            case "/compare":
                self._toggle_comparing()
            case _:
                self._print(HELP)
        return True

    def ask(self, question: str) -> None:
        """Ask, and print the answers as they come.

        Raises:
            AfterError: there is no answer.
        """
        exchange = Exchange(question)
        speakers: tuple[Who, ...] = ("base", "tuned") if self.comparing else ("tuned",)
        column = (self._columns() - len(GAP)) // 2
        try:
            if len(speakers) == 2 and self._terminal and column >= LEAST_COLUMN:
                self._side_by_side(exchange, speakers, column)
            else:
                for who in speakers:
                    self._one(exchange, who, named=len(speakers) > 1)
        finally:
            if exchange.answers:
                self.exchanges.append(exchange)

    def _one(self, exchange: Exchange, who: Who, *, named: bool) -> None:
        if named:
            self._print(f"{_NAMES[who]}:")
        for reply in self._replies(exchange, (who,)):
            if isinstance(reply, Piece):
                self._write(harmless(reply.text))
            elif isinstance(reply, Said):
                exchange.answers[who] = reply.text
                self._print("")
                self._tell_ends([reply])

    def _side_by_side(self, exchange: Exchange, speakers: tuple[Who, ...], width: int) -> None:
        columns = {who: Column(width) for who in speakers}
        both = Columns(list(columns.values()))
        heading = GAP.join(_NAMES[who].ljust(width) for who in speakers).rstrip()
        self._print(heading)
        self._print(GAP.join("─" * width for _ in speakers))
        said: list[Said] = []
        for reply in self._replies(exchange, speakers):
            if isinstance(reply, Piece):
                columns[reply.who].add(harmless(reply.text))
            elif isinstance(reply, Said):
                columns[reply.who].end()
                exchange.answers[reply.who] = reply.text
                said.append(reply)
            for row in both.take():
                self._print(row)
        self._tell_ends(said)

    def _replies(self, exchange: Exchange, speakers: tuple[Who, ...]) -> Iterator[Any]:
        """What comes back; Ctrl-C meanwhile ends the answers."""
        request = Say(
            talks={who: self._turns(exchange, who) for who in speakers}, sampling=self._sampling
        )
        with self._interruptible(), ProgressLine() as line:
            for reply in self._talk.say(request):
                if isinstance(reply, Progress):
                    line.show(reply)
                    continue
                line.clear()
                yield reply

    def _turns(self, exchange: Exchange, who: Who) -> tuple[Turn, ...]:
        turns = [Turn("system", self.system)] if self.system else []
        for before in self.exchanges:
            turns += [Turn("user", before.question), Turn("assistant", before.answer_to(who))]
        return (*turns, Turn("user", exchange.question))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Within it Ctrl-C asks the model to stop speaking."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        presses = 0

        def hush(number: int, frame: object) -> None:
            nonlocal presses
            presses += 1
            if presses >= MOST_INTERRUPTS:
                raise KeyboardInterrupt
            # In a thread: the signal may have come while a request is being written.
            threading.Thread(target=self._talk.hush, daemon=True).start()

        before = signal.signal(signal.SIGINT, hush)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _toggle_comparing(self) -> None:
        ready = self._talk.ready
        if not self.comparing and "base" not in ready.speakers:
            tell("nothing says which model it was tuned from: name it with --base-model")
            return
        self.comparing = not self.comparing
        self._note(
            ("the base model answers as well" + (f" ({ready.cost})" if ready.cost else ""))
            if self.comparing
            else "the tuned model answers alone"
        )

    def _tell_ends(self, said: list[Said]) -> None:
        """How the answers ended, where a person sees it."""
        if not self._terminal:
            return
        told = []
        for each in said:
            name = f"{_NAMES[each.who]} " if len(said) > 1 else ""
            speed = f", {each.tokens / each.seconds:.1f}/s" if each.seconds > 0 else ""
            how = {"end": "", "length": ", cut at the most tokens", "hushed": ", interrupted"}
            told.append(f"{name}{each.tokens} tokens{speed}{how[each.end]}")
        self._note("; ".join(told))

    def _note(self, text: str) -> None:
        if not self._terminal:
            return
        plain = "NO_COLOR" in os.environ
        self._print(f"({text})" if plain else f"\x1b[2m({text})\x1b[22m")

    def _columns(self) -> int:
        return self._width or shutil.get_terminal_size().columns

    def _print(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()


_COMMANDS = ("/quit", "/exit", "/new", "/system", "/compare", "/help")


def _writable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of another encoding become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
