"""Configure's memory: the forecast under the form, its proof, and changes that make the profile fit."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from textual.timer import Timer
from textual.worker import Worker, get_current_worker

from core.catalogue import find
from tui.draft import Draft, text_of
from tui.forecasting import Findings, Forecasting, varies
from tui.memory_desk import GivenUpError, Proof, Remedies
from tui.screens.configure_form import ConfigureForm
from tui.screens.confirm import MessageDialog
from tui.source import SourceError
from tui.widgets.memory_bar import MemoryBar
from tui.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.memory.forecast import Forecast
    from core.profile import Profile
    from core.values import Scalar
    from tui.memory_view import Device

_LOOK_AFTER = 0.25
"""Seconds without a key after which the machine and the model are looked at."""
_ROOMY = 30
"""Rows from which on the bar may take several."""
_MODEL = "model.model_name_or_path"


class ConfigureMemory(ConfigureForm):
    """The form with the memory bar. Files, drivers and dry runs are asked in threads."""

    def __init__(self) -> None:
        super().__init__()
        self._forecasting: Forecasting | None = None
        self._memory_timer: Timer | None = None
        self._proving: Worker[None] | None = None

    @property
    def forecasting(self) -> Forecasting:
        """The forecasts of this screen's drafts."""
        if self._forecasting is None:
            self._forecasting = Forecasting(self.deck.source.memory())
        return self._forecasting

    def _show(self, *, keep: str = "") -> None:
        with self.app.batch_update():
            super()._show(keep=keep)
            self._show_memory()

    def on_screen_resume(self) -> None:
        # Textual calls the base class's as well. The devices may be others than when the screen was left.
        if self.ready:
            self._show_memory()

    # -- the bar ------------------------------------------------------------------------------

    def _show_memory(self) -> None:
        bar = next(iter(self.query(MemoryBar)), None)
        if bar is None:  # An answer may come while the screen is taken down.
            return
        profile = self._review.profile
        view = self.forecasting.view(profile, self._data, self._why_none())
        roomy = self.wide and self.size.height >= _ROOMY
        bar.show(view, roomy=roomy, proving=self._proving is not None)
        if profile is not None and self.forecasting.lacks(profile, monotonic()):
            self._look_at_memory_soon()

    def _why_none(self) -> str:
        if _MODEL in self._problems and not self.draft.text(_MODEL):
            return "the forecast needs a model"
        return f"the forecast waits for {plural(len(self._problems), 'problem')} (n)"

    def _look_at_memory_soon(self) -> None:
        if self._memory_timer is not None:
            self._memory_timer.stop()
        self._memory_timer = self.set_timer(_LOOK_AFTER, self._look_at_memory)

    def _look_at_memory(self) -> None:
        profile = self._review.profile
        if profile is not None and self.is_current:
            self.run_worker(
                lambda: self._find_out(profile), group="memory", exclusive=True, thread=True
            )

    def _find_out(self, profile: Profile) -> None:
        """Runs in a thread."""
        found = self.forecasting.look(profile, monotonic())
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._found_out, found)

    def _found_out(self, found: Findings) -> None:
        self.forecasting.take(found)
        if self.is_attached:
            self._show_memory()

    # -- proof --------------------------------------------------------------------------------

    def action_prove_memory(self) -> None:
        """v: a dry run of the training that needs the most."""
        asked = self._about_memory()
        if asked is None or self._proving is not None:
            return
        device, training, _ = asked
        self._proving = self.run_worker(
            lambda: self._prove(training, device), group="proof", exclusive=True, thread=True
        )
        self.say("Two training steps run dry on the CPU: some seconds. Esc gives up.")
        self._show_memory()

    def _prove(self, training: Profile, device: Device) -> None:
        """Runs in a thread."""
        worker = get_current_worker()
        proof: Proof | None = None
        problem = ""
        try:
            proof = self.forecasting.desk.prove(training, device, lambda _: not worker.is_cancelled)
        except GivenUpError:
            pass
        except SourceError as error:
            problem = str(error)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._proven, training, device, proof, problem)

    def _proven(self, training: Profile, device: Device, proof: Proof | None, problem: str) -> None:
        self._proving = None
        if proof is not None:
            self.forecasting.take_lengths(training, proof.lengths)
            self.forecasting.take_proof(training, device.target, proof.forecast)
            if proof.forecast.tier == "estimate":
                self._tell("A dry run, but still an estimate", " ".join(proof.forecast.notes))
            else:
                self.say("Proven: it holds until something changes that memory depends on.")
        elif problem:
            from tui.fix_view import sentence

            self.deck.fail(sentence(problem))
        if self.is_attached:
            self._show_memory()

    def _tell(self, title: str, text: str) -> None:
        """Say something in a line if it fits, else in a box."""
        line = f"{title}: {text}"
        if len(line) + 3 <= self.size.width:
            self.say(line, "warning")
        else:
            self.app.push_screen(MessageDialog(title, text))

    def escape(self) -> None:
        """Esc: give a proof up, else out of the filter."""
        if self._proving is None:
            super().escape()
            return
        self._proving.cancel()
        self._proving = None
        self.say("The dry run is given up.")
        self._show_memory()

    # -- fixes --------------------------------------------------------------------------------

    def action_fit_memory(self) -> None:
        """f: look for changes that make the profile fit, or faster where it fits."""
        asked = self._about_memory()
        if asked is not None:
            self.run_worker(self._fit(*asked[:2]), group="dialog", exclusive=True)

    async def _fit(self, device: Device, training: Profile) -> None:
        from tui.fix_view import from_fix, headline
        from tui.screens.fixes import FixDialog, Found

        architecture = self.forecasting.architecture(training)
        profile = self._review.profile
        if architecture is None or profile is None:
            return
        # What is searched is left alone where anything else helps: the search must be known for that.
        wanted = replace(training, search=profile.search)

        remedies: list[Remedies] = []

        def search(told: Callable[[str], bool]) -> Found:
            found = self.forecasting.desk.fixes(wanted, architecture, device, told)
            remedies.append(found)
            fixes = (found.faster,) if found.faster is not None else found.advice.fixes
            return Found(headline(found.advice, found.faster), tuple(map(from_fix, fixes)))

        what = "the largest trial" if varies(profile) else "it"
        dialog = FixDialog(f"Make {what} fit {device.label}", search=search)
        picked = await self.app.push_screen_wait(dialog)
        for found in remedies:
            self.forecasting.take_lengths(training, found.lengths)
        if picked is not None and picked.changes:
            if picked.forecast is not None and picked.proven:
                fixed = training.with_changes(picked.changes)
                self.forecasting.take_proof(fixed, device.target, picked.forecast)
            self._apply(picked.changes)
        else:
            self._show_memory()

    def _apply(self, changes: Mapping[str, Scalar]) -> None:
        """Put a fix into the draft, as one step of undo."""
        draft, taken = with_changes(self._history.present, changes)
        self._change(draft)
        titles = ", ".join(find(name).doc.title for name in changes)
        told = f" No longer searched: {', '.join(taken)}." if taken else ""
        self.say(f"u takes back: {titles}.{told}")
        self._go_to(find(next(iter(changes))).key)

    def _about_memory(self) -> tuple[Device, Profile, Forecast] | None:
        """What a question about memory is about; says why where there is nothing to ask about."""
        profile = self._review.profile
        if profile is None:
            self.say("Put right what is wrong first: n goes there.", "warning")
            return None
        asked = self.forecasting.decisive(profile, self._data)
        if asked is None:
            view = self.forecasting.view(profile, self._data, "")
            self.deck.fail(f"{view.problem[:1].upper()}{view.problem[1:]}.")
        return asked


def with_changes(draft: Draft, changes: Mapping[str, Scalar]) -> tuple[Draft, list[str]]:
    """A draft with these values (parameter name → value), and which of them are searched no more."""
    taken = []
    for name, value in changes.items():
        parameter = find(name)
        if parameter.key in draft.space:
            draft = draft.without_space(parameter.key)
            taken.append(parameter.doc.title)
        draft = draft.with_text(parameter.key, text_of(parameter, value))
    return draft, taken
