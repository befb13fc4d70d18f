"""The form of the Configure screen: fields that are edited in place, explanations, checks and costs as one types."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import get_current_worker

from core.catalogue import Parameter, find, parameters
from core.data_size import SUFFIXES, CountStoppedError, RowCounter
from core.problems import Problem
from core.profile import READY_MADE, Profile
from tui import theme
from tui.actions import Context
from tui.ascii_text import ascii_text
from tui.draft import SPACE, Draft, History, Review, changed_key, default_text, review
from tui.explain import as_text, explain
from tui.form import Field, Shown, lines
from tui.keymap import bindings
from tui.plan import DataCount, Plan, all_problems, plan
from tui.row_count import Names, look, names_of
from tui.screens.base import DeckScreen
from tui.screens.confirm import MessageDialog
from tui.screens.pick import Choice, PickDialog
from tui.source import short_path
from tui.space_text import how_to, suggested_space
from tui.widgets.bars import Heading, Pieces
from tui.widgets.help_pane import HelpPane
from tui.widgets.lines import Piece, fit
from tui.widgets.memory_bar import MemoryBar
from tui.widgets.param_field import FieldEditor, PathSuggester
from tui.widgets.param_form import ParamForm
from tui.widgets.plan_bar import PlanBar

_LOOK_AFTER = 0.25
"""Seconds without a key after which the files that a draft names are looked at."""
_NOT_SET = "not set"
_EMPTY = "empty"
_PATHS = {
    "model.model_name_or_path": (".gguf",),
    "data.dataset": SUFFIXES,
    "data.eval_dataset": SUFFIXES,
    # These are folders.
    "data.dataset_dir": (),
    "model.adapter_name_or_path": (),
    "alignment.reward_model": (),
    "alignment.ref_model": (),
}
Editing = Literal["value", "space"]


class ConfigureForm(DeckScreen):
    """Edits one draft. Everything that is shown is made anew from it after each change."""

    CSS_PATH = "../styles/configure.tcss"
    TITLE_NAME = "configure"
    CONTEXTS: ClassVar[tuple[Context, ...]] = ("configure",)
    FILTERS = "words of a title, a name or an explanation"
    BINDINGS: ClassVar[list[BindingType]] = bindings("configure")

    def __init__(self) -> None:
        super().__init__()
        self._path: Path | None = None
        self._history = History(Draft())
        self._saved = Draft()
        self._started: Draft | None = None
        """What was started last: its study keeps it."""
        self._live: Draft | None = None
        """The draft while a field is edited; accepted, it becomes a step of the history."""
        self._editing: tuple[Editing, str] | None = None
        self._shown = Shown()
        self._review: Review = review(Draft())
        self._data = DataCount()
        self._problems: dict[str, Problem] = {}
        self._counter = RowCounter()
        self._names: Names | None = None
        self._look_timer: Timer | None = None

    def body(self) -> ComposeResult:
        yield Pieces(ascii=self.ascii, id="configure-head")
        with Container(id="configure-body"):
            with Container(id="form-area"):
                yield ParamForm(ascii=self.ascii, id="form")
                yield FieldEditor(id="editor")
            with Container(id="help-area"):
                yield Heading("What it means", ascii=self.ascii, id="help-heading")
                yield HelpPane(ascii=self.ascii, id="help")
        yield MemoryBar(ascii=self.ascii, id="memory")
        yield PlanBar(ascii=self.ascii, id="plan")

    # -- parts --------------------------------------------------------------------------------

    @property
    def form(self) -> ParamForm:
        return self.query_one(ParamForm)

    @property
    def editor(self) -> FieldEditor:
        return self.query_one(FieldEditor)

    @property
    def draft(self) -> Draft:
        """What the form says now."""
        return self._live or self._history.present

    @property
    def profile(self) -> Profile | None:
        """The profile that the form says, when nothing is wrong with it."""
        return None if self._problems else self._review.profile

    @property
    def problems(self) -> dict[str, Problem]:
        """What is wrong, by parameter."""
        return self._problems

    @property
    def plan(self) -> Plan:
        """The numbers that are shown below."""
        return plan(self._review, self._data)

    @property
    def unsaved(self) -> bool:
        """Whether there are changes that no file has."""
        return self._history.present != self._saved

    @property
    def may_lose(self) -> bool:
        """Whether there are changes that neither a file nor a study has."""
        return self.unsaved and self._history.present != self._started

    def on_mount(self) -> None:
        self.form.focus()
        self._show_draft()

    def focus_main(self) -> None:
        (self.editor if self.editor.is_open else self.form).focus()

    # -- showing ------------------------------------------------------------------------------

    def _show_draft(self) -> None:
        """After any change of the draft."""
        self._review = review(self.draft)
        names = names_of(self._review, self._folder)
        if names != self._names:
            self._names = names
            self._look_soon()
        self._show(keep=self.form.current or "")

    def _show(self, *, keep: str = "") -> None:
        """After any change of what is known or wanted; the field `keep` stays in sight."""
        self._problems = all_problems(self._review, self._data)
        shown = replace(self._shown, query=self.query_text, keep=keep)
        listed = lines(self.draft, self._review, self._problems, shown)
        with self.app.batch_update():
            self.form.set_lines(listed)
            self.query_one(PlanBar).show(self.plan, len(self._problems))
            self._show_head(sum(isinstance(entry, Field) for entry in listed))
            self._show_current()

    def _show_current(self) -> None:
        """The explanation of the current field."""
        key = self.form.current
        explanation = explain(find(key), self.draft, self._review, self._problems) if key else None
        self.query_one(HelpPane).show(explanation)
        if self._editing:
            self.editor.place(self.form.value_region)

    def _show_head(self, fields: int) -> None:
        name = self.draft.text("profile.name")
        place = short_path(self._path) if self._path else "new: o opens a profile"
        if self._path and self._path.parent == READY_MADE:
            place = "ready-made"
        dot = "*" if self.ascii else "●"
        state = f"{dot} not saved" if self.unsaved else ""
        right = f"{state}  {fields} of {len(parameters())} parameters"
        width = max(0, self.size.width - 2)
        room = max(0, width - cell_len(right) - 1)
        title = fit(name, min(room, cell_len(name)), ascii=self.ascii)
        note = fit(f"  {place}", max(0, room - cell_len(title)), ascii=self.ascii)
        pieces: list[Piece] = [
            (title, theme.style("bright", bold=True)),
            (note, theme.style("muted")),
            (" ", theme.style("muted")),
            (state, theme.style("warning")),
            (right[len(state) :], theme.style("muted")),
        ]
        self.query_one("#configure-head", Pieces).show(pieces)

    def on_param_form_highlighted(self) -> None:
        self._show_current()

    def filtered(self) -> None:
        self._show()

    def sized(self) -> None:
        self.call_after_refresh(self._show, keep=self.form.current or "")

    # -- files and rows -----------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return self.draft.folder or Path.cwd()

    def _look_soon(self) -> None:
        if self._look_timer is not None:
            self._look_timer.stop()
        self._look_timer = self.set_timer(_LOOK_AFTER, self._look)

    def _look(self) -> None:
        names = self._names
        if names is not None:
            self.run_worker(lambda: self._count(names), group="rows", exclusive=True, thread=True)

    def _count(self, names: Names) -> None:
        """Runs in a thread."""
        worker = get_current_worker()

        def show(data: DataCount) -> bool:
            if worker.is_cancelled:
                return False
            self.app.call_from_thread(self._show_data, names, data)
            return True

        with suppress(CountStoppedError):
            show(look(names, self._counter, show))

    def _show_data(self, names: Names, data: DataCount) -> None:
        if names == self._names and data != self._data and self.is_attached:
            self._data = data
            self._show(keep=self.form.current or "")

    # -- editing ------------------------------------------------------------------------------

    def _change(self, draft: Draft) -> None:
        """Make `draft` the present one, as one step of undo."""
        self._history = self._history.then(draft)
        self._show_draft()

    def _current(self) -> Parameter | None:
        """The current field, if it can be changed."""
        key = self.form.current
        parameter = find(key) if key and not self.editor.is_open else None
        if parameter is None or parameter.key == SPACE or parameter.table == "tuned":
            return None
        return parameter

    def action_edit(self) -> None:
        """Enter: change the current field, in the way that suits it."""
        parameter = self._current()
        if parameter is None:
            self._follow_space()
        elif parameter.key in self.draft.space:
            self._open_editor("space", parameter)
        elif parameter.kind == "bool":
            self.action_cycle(1)
        elif parameter.kind == "choice":
            self.run_worker(self._choose(parameter), group="dialog", exclusive=True)
        else:
            self._open_editor("value", parameter)

    def on_param_form_clicked(self) -> None:
        self.action_edit()

    def _follow_space(self) -> None:
        """From the line that names the searched parameters to the first of them."""
        if self.form.current == SPACE and self.draft.space:
            self.form.move_to(min(self.draft.space, key=self.form.keys.index))
        elif self.form.current == SPACE:
            self.say("Press x on the parameter that you want to search.")

    async def _choose(self, parameter: Parameter) -> None:
        values = [str(c) for c in parameter.choices]
        if parameter.optional:
            values.insert(0, _NOT_SET)
        default = default_text(parameter.key) or _NOT_SET
        choices = [Choice(v, v, "default" if v == default else "") for v in values]
        current = self.draft.text(parameter.key) or _NOT_SET
        dialog = PickDialog(
            parameter.doc.title, choices, placeholder="type to narrow", current=current
        )
        picked = await self.app.push_screen_wait(dialog)
        if picked is not None:
            text = "" if picked == _NOT_SET else picked
            self._change(self.draft.with_text(parameter.key, text))

    def action_cycle(self, by: int = 1) -> None:
        """The next value of a field that has few."""
        parameter = self._current()
        if parameter is None or parameter.key in self.draft.space:
            return
        values = ["false", "true"] if parameter.kind == "bool" else [*map(str, parameter.choices)]
        if parameter.optional and parameter.choices:
            values.insert(0, "")
        if not values:
            self.say("Enter edits this field.")
            return
        text = self.draft.text(parameter.key)
        at = values.index(text) + by if text in values else 0
        self._change(self.draft.with_text(parameter.key, values[at % len(values)]))

    def action_cycle_back(self) -> None:
        self.action_cycle(-1)

    def action_mark(self) -> None:
        """x: search the current field."""
        key = self.form.current
        parameter = self._current()
        if parameter is None or not parameter.searchable:
            if key and not self.editor.is_open:
                self.say(f"{key} cannot be searched.", "warning")
            return
        self._open_editor("space", parameter)

    def action_reset(self) -> None:
        """Backspace: search the field no more, or else give it its default."""
        parameter = self._current()
        if parameter is None:
            return
        if parameter.key in self.draft.space:
            self._change(self.draft.without_space(parameter.key))
        else:
            self._change(self.draft.with_default(parameter.key))

    def _open_editor(self, kind: Editing, parameter: Parameter) -> None:
        self._editing = (kind, parameter.key)
        draft = self.draft
        suggester = None
        if kind == "space":
            fallback = suggested_space(parameter, self._review.values)
            text = draft.space.get(parameter.key, fallback)
            placeholder = how_to(parameter)
        else:
            text = draft.text(parameter.key)
            placeholder = parameter.allowed()
            if parameter.key in _PATHS:
                suggester = PathSuggester(self._folder, _PATHS[parameter.key])
        self.form.locked = True
        self.editor.place(self.form.value_region)
        self.editor.open(text, suggester=suggester, placeholder=placeholder)
        self._edited(text)

    def _edited(self, text: str) -> None:
        """The text of the field that is being edited."""
        if self._editing is None:
            return
        kind, key = self._editing
        before = self._history.present
        if kind == "value":
            self._live = before.with_text(key, text)
        elif text.strip():
            self._live = before.with_space(key, text)
        else:
            self._live = before.without_space(key)
        self._show_draft()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "editor":
            self._edited(event.value)
        else:
            super().on_input_changed(event)

    def on_field_editor_accepted(self, event: FieldEditor.Accepted) -> None:
        self._close_editor(accept=True)
        if event.move and self.form.step(event.move):
            parameter = self._current()
            if parameter is not None and parameter.kind not in ("bool", "choice"):
                self.call_after_refresh(self.action_edit)

    def on_field_editor_cancelled(self) -> None:
        self._close_editor(accept=False)

    def on_descendant_blur(self) -> None:
        """A click elsewhere accepts what was typed."""
        elsewhere = self.app.app_focus and self.app.screen is self
        if self._editing and elsewhere and not self.editor.has_focus:
            self._close_editor(accept=True)

    def _close_editor(self, *, accept: bool) -> None:
        live, self._live, self._editing = self._live, None, None
        self.editor.close()
        self.form.locked = False
        self.form.focus()
        if accept and live is not None:
            self._history = self._history.then(live)
        self._show_draft()

    def action_undo(self) -> None:
        self._travel(self._history.undo(), "Nothing to undo.")

    def action_redo(self) -> None:
        self._travel(self._history.redo(), "Nothing to do again.")

    def _travel(self, history: History, otherwise: str) -> None:
        if history is self._history:
            self.say(otherwise)
            return
        changed = changed_key(self._history.present, history.present)
        self._history = history
        self.say("")  # What was said was about the change that is taken back.
        self._show_draft()
        if changed:
            self.form.move_to(changed)

    # -- looking ------------------------------------------------------------------------------

    def action_next_problem(self) -> None:
        """To the next field that something is wrong with."""
        keys = list(self._problems)
        if not keys:
            self.say("Nothing is wrong.")
            return
        current = self.form.current
        at = keys.index(current) + 1 if current in keys else 0
        self._go_to(keys[at % len(keys)])

    def _go_to(self, key: str) -> None:
        if not self.form.move_to(key):
            self.close_filter(clear=True)
            self._show(keep=key)
            self.form.move_to(key)

    def action_advanced(self) -> None:
        self._shown = replace(self._shown, advanced=not self._shown.advanced)
        self.say(f"Parameters for experts are {'shown' if self._shown.advanced else 'hidden'}.")
        self._show()

    def action_without_effect(self) -> None:
        shown = not self._shown.without_effect
        self._shown = replace(self._shown, without_effect=shown)
        self.say(f"Parameters without effect are {'shown' if shown else 'hidden'}.")
        self._show()

    def action_next_group(self) -> None:
        self.form.step_group(1)

    def action_previous_group(self) -> None:
        self.form.step_group(-1)

    def help_contexts(self) -> tuple[Context, ...]:
        return ("configure", "table", "app")

    def action_explain(self) -> None:
        """The whole explanation in a box."""
        key = self.form.current
        if key is not None:
            explanation = explain(find(key), self.draft, self._review, self._problems)
            plain = ascii_text if self.ascii else str
            text = "\n\n".join(filter(None, (as_text(explanation), self._beyond(key))))
            self.app.push_screen(MessageDialog(plain(explanation.title), plain(text)))

    def _beyond(self, key: str) -> str:
        """What is known about a field of this draft beyond its explanation."""
        choice = self.plan.choice
        if choice is None or key not in ("search.strategy", "search.stopping", "search.trials"):
            return ""
        return f"This search: {choice.why}."

    def escape(self) -> None:
        """Esc: out of the filter."""
        self.close_filter(clear=True)
