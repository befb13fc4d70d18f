"""Recipes whose steps somebody else runs: the journals that daemons would write, and a carrier's work done in no time."""

from dataclasses import dataclass, field
from pathlib import Path

from core.engine.recipes.exporting import HandoverError
from core.engine.recipes.handover import Hands
from core.study.events import (
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.journal import JournalWriter
from core.study.store import StudyFolder

SHARED = """
[profile]
name = "shop"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
[resources]
devices = "cpu"
"""
THREE = SHARED + '[[step]]\nname = "general"\n[[step]]\nname = "domain"\n[[step]]\nname = "task"\n'
ALIGNED = (
    SHARED
    + """
[[step]]
name = "chat"
[[step]]
name = "judge"
[step.method]
stage = "rm"
[[step]]
name = "align"
[step.method]
stage = "ppo"
[step.alignment]
reward_model = "step:judge"
"""
)


def tell(study: Path, *events) -> None:
    writer = JournalWriter(StudyFolder(study).journal)
    writer.append(*(encode(event) for event in events))
    writer.close()


def runs(study: Path) -> None:
    """What a daemon writes when it begins."""
    if not StudyFolder(study).journal.exists():
        tell(
            study,
            StudyCreated(
                t=1.0, version=3, name=study.name, tunedeck="0", rank_by="loss", planned=1
            ),
            TrialAdded(t=1.0, trial=1, settings={}, kind="full"),
            TrialStarting(t=1.0, trial=1, attempt=1, device="cpu"),
        )


def ends(study: Path, ending="completed") -> None:
    runs(study)
    tell(
        study,
        TrialEnded(t=2.0, trial=1, attempt=1, ending=ending, loss=1.0, step=5, reason="so it is"),
        StudyChanged(t=2.0, status="finished"),
    )


@dataclass
class Fake:
    """Runs studies in no time, and exports nothing but a file."""

    ending: str = "completed"
    trouble: str = ""
    served: list[str] = field(default_factory=list)
    exported: list[tuple[str, Path]] = field(default_factory=list)
    bases: list[Path | None] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)

    def export(self, trial, base, output, wanted) -> int:
        self.wanted.append(wanted())
        if self.trouble:
            raise HandoverError(self.trouble)
        self.exported.append((f"{trial.path.parents[1].name}/{trial.path.name}", output))
        self.bases.append(base)
        output.mkdir()
        (output / "model.safetensors").write_bytes(b"weights")
        return 7

    def serve(self, study: Path) -> None:
        self.served.append(study.name)
        StudyFolder(study).trial(1).output.mkdir(parents=True)
        ends(study, self.ending)

    @property
    def hands(self) -> Hands:
        return Hands(self.export, self.serve)
