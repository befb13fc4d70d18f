"""The screens by their names. A module is imported when its screen is first shown: only few are needed
for the first frame."""

from collections.abc import Callable, Mapping

from textual.screen import Screen


def _studies() -> Screen[None]:
    from tui.screens.studies import StudiesScreen

    return StudiesScreen()


def _configure() -> Screen[None]:
    from tui.screens.configure import ConfigureScreen

    return ConfigureScreen()


def _trials() -> Screen[None]:
    from tui.screens.trials import TrialsScreen

    return TrialsScreen()


def _gpus() -> Screen[None]:
    from tui.screens.gpus import GpusScreen

    return GpusScreen()


def _results() -> Screen[None]:
    from tui.screens.results import ResultsScreen

    return ResultsScreen()


SCREENS: Mapping[str, Callable[[], Screen[None]]] = {
    "studies": _studies,
    "configure": _configure,
    "trials": _trials,
    "gpus": _gpus,
    "results": _results,
}
