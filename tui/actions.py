"""Everything that a person can do, once: its key, its words, and where it works.

Bindings, footer, help and palette are made from this table. An action `stop_trial` in the context
`trials` is the method `action_stop_trial` of that screen (of the app in the context `app`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Context = Literal[
    "app", "table", "studies", "configure", "data", "range", "trials", "detail", "gpus", "results"
]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `keys` are Textual's names, the first one is shown."""

    name: str
    keys: tuple[str, ...]
    words: str
    """What it does, for the help and the palette."""
    context: Context
    short: str = ""
    """For the footer; without it the footer leaves the action out."""
    weight: int = 0
    """What stays in a narrow footer: the heaviest."""
    argument: str = ""
    """The text that the method is called with, if it takes one."""
    palette: bool = True

    @property
    def id(self) -> str:
        """Its name among all actions."""
        return f"{self.context}.{self.name}" + (f".{self.argument}" if self.argument else "")

    @property
    def call(self) -> str:
        """The action as Textual runs it."""
        call = f"{self.name}({self.argument!r})" if self.argument else self.name
        return f"app.{call}" if self.context == "app" else f"screen.{call}"


def _go(key: str, screen: str, words: str) -> Action:
    return Action("go", (key,), words, "app", argument=screen)


ACTIONS: tuple[Action, ...] = (
    _go("1", "studies", "Studies: open, start and delete"),
    _go("2", "configure", "Configure: set up a new study"),
    _go("3", "trials", "Trials: watch and steer"),
    _go("4", "gpus", "GPUs and host"),
    _go("5", "results", "Results: ranking, save the winner"),
    Action("help", ("question_mark", "f1"), "Show the keys that work here", "app", "keys", 90),
    Action("command_palette", ("ctrl+p",), "Find an action by its name", "app", palette=False),
    Action("quit", ("q", "ctrl+c"), "Quit; trials keep running", "app", "quit", 80),
    Action("go_back", ("escape",), "Back: close what is open, clear the filter", "app", palette=False),
    # Moving in a table is the table's own business; it stands here for the help.
    Action("move", ("up", "down", "k", "j"), "Move the cursor", "table", palette=False),
    Action(
        "page", ("pageup", "pagedown", "home", "end"), "Move by a page, or to an end", "table",
        palette=False,
    ),
    Action("open_study", ("enter",), "Open the study", "studies", "open", 100),
    Action("new_study", ("n",), "Set up a new study", "studies", "new", 70),
    Action("demo", ("d",), "Run the demo: no GPU, no network, three minutes", "studies", "demo", 60),
    Action("filter", ("slash",), "Show only studies that match", "studies", "filter", 40),
    Action("refresh", ("r",), "Look for studies again", "studies"),
    Action("delete_study", ("D",), "Delete the study and its files", "studies", "delete", 50),
    Action("edit", ("enter",), "Change the field; Tab goes on to the next, Esc takes back", "configure",
           "edit", 100),
    Action("mark", ("x", "m"), "Search the parameter: a list or a range", "configure", "search", 76),
    Action("cycle", ("space", "right"), "Next value of a choice or a switch", "configure"),
    Action("cycle_back", ("left",), "Previous value", "configure", palette=False),
    Action("reset", ("backspace", "delete"), "Search it no more; else back to the default", "configure",
           "default", 46),
    Action("undo", ("u", "ctrl+z"), "Undo the last change", "configure", "undo", 48),
    Action("redo", ("ctrl+y",), "Do it again", "configure"),
    Action("next_problem", ("n",), "Go to the next problem", "configure"),
    Action("next_group", ("tab", "right_curly_bracket"), "Next group", "configure"),
    Action("previous_group", ("shift+tab", "left_curly_bracket"), "Previous group", "configure",
           palette=False),
    Action("filter", ("slash",), "Show parameters by words of name or explanation", "configure",
           "find", 62),
    Action("advanced", ("a",), "Show or hide parameters for experts", "configure", "all", 56),
    Action("without_effect", ("i",), "Show or hide parameters without effect", "configure"),
    Action("explain", ("h",), "Show the whole explanation", "configure"),
    Action("open_profile", ("o",), "Open a profile: ready-made, or a file", "configure", "open", 72),
    Action("save_profile", ("w", "ctrl+s"), "Save as a TOML file", "configure", "save", 70),
    Action("fit_memory", ("f",), "Make it fit into memory: changes that are proven to, to pick from",
           "configure", "fit", 68),
    Action("prove_memory", ("v",), "Prove the memory forecast with a dry run on the CPU (seconds)",
           "configure", "prove", 44),
    Action("test_rates", ("l",), "Learning-rate range test: a short run that shows which rates train",
           "configure", "lr test", 58),
    Action("show_data", ("d",), "Data: examples as they are learnt, lengths, usual mistakes", "configure",
           "data", 57),
    Action("start", ("r", "f5"), "Run: start the search, or the training", "configure", "run", 74),
    Action("next_example", ("right", "n"), "The next example", "data", "next", 70),
    Action("previous_example", ("left", "p"), "The example before", "data", "before", 60),
    Action("next_finding", ("f",), "The next row that a finding is about", "data", "finding", 66),
    Action("toggle_tokens", ("t",), "Each token apart, or the text as it reads", "data", "tokens", 64),
    Action("toggle_ids", ("i",), "Each token with its number", "data", "numbers", 50),
    Action("next_pane", ("tab",), "The other pane, to scroll it", "data", "pane", 48),
    Action("examine_all", ("a",), "Examine every row, not just the first 20,000", "data", "all rows", 40),
    Action("read_again", ("r",), "Read the data again", "data", "again", 45),
    Action("take_over", ("enter", "t"), "Search the suggested range of learning rates", "range",
           "take over", 100),
    Action("new_test", ("n",), "Another test, at other rates", "range", "new", 60),
    Action("show_study", ("o",), "Show its study in Trials: log, memory, settings", "range", "study", 56),
    Action("stop_test", ("S",), "Stop the test", "range", "stop", 58),
    Action("copy_command", ("c",), "Copy the command that runs this test", "range"),
    Action("open_trial", ("enter",), "Show the trial on the whole screen", "trials", "open", 100),
    Action("pause_trial", ("p",), "Pause: save a checkpoint and free the GPU", "trials", "pause", 66),
    Action("resume_trial", ("r",), "Resume exactly from the checkpoint", "trials", "resume", 64),
    Action("stop_trial", ("S",), "Stop the trial for good", "trials", "stop", 68),
    Action("retry_trial", ("f",), "Try again, with the suggested fix if there is one", "trials",
           "fix", 62),
    Action("add_trial", ("a",), "Add a trial with settings of your own", "trials", "add", 60),
    Action("promote", ("P",), "Train fully with the trial's settings", "trials", "promote", 58),
    Action("mark", ("space",), "Mark to compare: marked curves are drawn together", "trials",
           "mark", 52),
    Action("unmark_all", ("u",), "Take all marks away", "trials"),
    Action("filter", ("slash",), "Show only trials that match (state:diverged, loss<2)", "trials",
           "filter", 56),
    Action("sort", ("s",), "Sort by the next column", "trials", "sort", 54),
    Action("reverse", ("i",), "Turn the order round", "trials"),
    Action("start_engine", ("e",), "Start the study's engine again", "trials"),
    Action("pause_study", ("z",), "Pause the study, or go on with it", "trials"),
    Action("stop_study", ("X",), "Stop the study and all its trials", "trials"),
    Action("notices", ("w",), "Show what the engine had to say", "trials"),
    Action("previous_trial", ("comma",), "The trial above, also while one is open", "detail"),
    Action("next_trial", ("full_stop",), "The trial below, also while one is open", "detail"),
    Action("next_pane", ("tab",), "Next: chart, settings, log, advice", "detail", "pane", 50),
    Action("previous_pane", ("shift+tab",), "Previous pane", "detail", palette=False),
    Action("next_measure", ("v",), "Chart: another measure (reward, gradient norm, speed)", "detail"),
    Action("log_scale", ("l",), "Chart: logarithmic values, or plain ones", "detail"),
    Action("smooth", ("m",), "Chart: moving average over the points", "detail"),
    Action("zoom_in", ("plus", "equals_sign"), "Chart: fewer steps, larger", "detail"),
    Action("zoom_out", ("minus",), "Chart: more steps", "detail"),
    Action("whole", ("0",), "Chart: all steps", "detail"),
    Action("pan_left", ("left_square_bracket",), "Chart: earlier steps", "detail"),
    Action("pan_right", ("right_square_bracket",), "Chart: later steps", "detail"),
    Action("read_left", ("left",), "Chart: read the value to the left", "detail"),
    Action("read_right", ("right",), "Chart: read the value to the right", "detail"),
    Action("use_model", ("o",), "Model: commands to export, talk to and evaluate it", "trials"),
    Action("copy_command", ("c",), "Copy the command that shows this study", "trials"),
    Action("copy_gpus", ("c",), "Copy this page as text", "gpus", "copy", 40),
    Action("scroll_up", ("up", "k"), "Scroll up", "gpus", palette=False),
    Action("scroll_down", ("down", "j"), "Scroll down", "gpus", palette=False),
    Action("show_trial", ("enter",), "Show the trial on the Trials screen", "results", "show", 100),
    Action("next_view", ("tab",), "Next picture: curves, scatter, parallel, importance, advice", "results",
           "view", 90),
    Action("previous_view", ("shift+tab",), "Previous picture", "results", palette=False),
    Action("next_axis", ("x",), "Scatter: over the next parameter; parallel: the next axes", "results",
           "axis", 48),
    Action("enlarge", ("v",), "Picture: larger, or the table larger again", "results"),
    Action("read_left", ("left",), "Scatter: the trial to the left", "results"),
    Action("read_right", ("right",), "Scatter: the trial to the right", "results"),
    Action("save", ("w",), "Save the trial's settings as a profile (TOML)", "results", "save", 70),
    Action("promote", ("P",), "Train fully with the trial's settings", "results", "promote", 68),
    Action("take_over", ("t",), "Search on: what the doctor proposes, as a new draft in Configure", "results",
           "search on", 64),
    Action("use_model", ("o",), "Model: commands to export, talk to and evaluate it", "results",
           "model", 46),
    Action("copy_profile", ("y",), "Copy the profile", "results", "copy", 60),
    Action("copy_command", ("c",), "Copy the command that saves this profile", "results",
           "copy command", 50),
    Action("log_scale", ("l",), "Curves and scatter: logarithmic values, or plain ones", "results"),
    Action("smooth", ("m",), "Curves: moving average over the points", "results"),
)  # fmt: skip


def in_contexts(contexts: Iterable[Context]) -> list[Action]:
    """The actions of these contexts, context by context."""
    return [action for context in contexts for action in ACTIONS if action.context == context]
