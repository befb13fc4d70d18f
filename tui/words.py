"""How the dashboard writes states, numbers, sizes and times: short, and the same on every screen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.study.state import TrialStatus
from core.values import Scalar, number

GIB = 2**30
CPU = "the CPU"
"""What the CPU is called in a forecast."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: a sign and a word, so that it is known without colour, and a colour."""

    glyph: str
    ascii_glyph: str
    word: str
    colour: str
    """The name of a colour of the theme."""

    def text(self, *, ascii: bool) -> str:
        """Sign and word."""
        return f"{self.ascii_glyph if ascii else self.glyph} {self.word}"


LOOKS: Mapping[TrialStatus, Look] = {
    "queued": Look("·", ".", "queued", "muted"),
    "starting": Look("○", "o", "starting", "primary"),
    "running": Look("▶", ">", "running", "primary"),
    "pausing": Look("‖", "=", "pausing", "accent"),
    "paused": Look("‖", "=", "paused", "accent"),
    "rung": Look("◇", "~", "at rung", "accent"),
    "stopping": Look("■", "#", "stopping", "warning"),
    "stopped": Look("■", "#", "stopped", "secondary"),
    "completed": Look("✓", "+", "completed", "success"),
    "pruned": Look("↓", "v", "dropped", "secondary"),
    "diverged": Look("↑", "^", "diverged", "error"),
    "oom": Look("!", "!", "OOM", "warning"),
    "failed": Look("✗", "x", "failed", "error"),
    "lost": Look("?", "?", "lost", "error"),
    "skipped": Look("□", "-", "won't fit", "warning"),
}
"""Every state of a trial."""
STALLED = Look("▷", "}", "stalled", "warning")
"""A trial that runs and has logged nothing for long."""

STUDY_LOOKS: Mapping[str, Look] = {
    "running": Look("▶", ">", "running", "primary"),
    "paused": Look("‖", "=", "paused", "accent"),
    "stopped": Look("■", "#", "stopped", "secondary"),
    "finished": Look("✓", "+", "finished", "success"),
    "engine not running": Look("!", "!", "engine not running", "warning"),
    "not begun": Look("!", "!", "not begun", "warning"),
    "cannot be read": Look("✗", "x", "cannot be read", "error"),
    "": Look(" ", " ", "", "muted"),
}
"""Every state of a study, and what the dashboard says where its state alone would mislead."""


def loss(value: float | None) -> str:
    """A loss in at most six characters; blank where there is none."""
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    magnitude = abs(value)
    if magnitude >= 1e5:
        return f"{value:.0e}"
    if magnitude >= 1000:
        return f"{value:.0f}"
    if magnitude >= 100:
        return f"{value:.1f}"
    return f"{value:.3f}" if magnitude >= 10 else f"{value:.4f}"


def size(value: int | None) -> str:
    """Bytes as GiB or MiB; blank where they are not known."""
    if value is None:
        return ""
    if value >= 100 * GIB:
        return f"{value / GIB:.0f} GiB"
    return f"{value / GIB:.1f} GiB" if value >= GIB else f"{value / 2**20:.0f} MiB"


def forecast(needed: int, measured: int | None, *, proven: bool) -> str:
    """A forecast of memory and what it came to: `forecast 17.2, measured 17.4 GiB`."""
    kind = "forecast" if proven else "estimate"
    if measured is None:
        return f"{kind} {size(needed)}"
    unit = size(measured).rpartition(" ")[2]
    same = size(needed).removesuffix(f" {unit}")
    return f"{kind} {same}, measured {size(measured)}"


def count(value: int) -> str:
    """A large number in three digits: 950, 4.19M, 1.1B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return str(value)


def share(part: float, whole: float) -> str:
    """A part of a whole as a percentage in three digits: 100 %, 12.3 %, 0.0624 %."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 99.95 or not percent else f"{percent:.3g} %"


def percent(part: float) -> str:
    """A share of a probe or of a training, as a person says it: 10 %, 33 %, 2.5 %."""
    return f"{float(f'{100 * part:.2g}'):g} %"


def times(value: float) -> str:
    """How often something is done, in two digits or whole: 0.42, 2.1, 34."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """A time span in two units at most: 8s, 1m 40s, 2h 05m, 3d 4h; blank where it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def remaining(seconds: float | None) -> str:
    """A time still to go, so coarse that it does not change at every look; blank if not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 5:
        return "<5s"
    if seconds < 60:
        return f"{5 * math.ceil(seconds / 5)}s"
    if seconds < 600:
        return duration(15 * math.ceil(seconds / 15))
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)}m"
    return duration(60 * math.ceil(seconds / 60))


def age(seconds: float) -> str:
    """How long ago: one unit is enough."""
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{int(seconds // 60)}m ago"
    if seconds < 86400:
        return f"{int(seconds // 3600)}h ago"
    return f"{int(seconds // 86400)}d ago"


def setting(value: object) -> str:
    """A parameter's value as it stands in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _short_float(value)
    return str(value)


def _short_float(value: float) -> str:
    """Four significant digits: what a sampler drew to sixteen is not read to sixteen."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.4g}"
    if 1e-3 <= abs(value) < 1e6:
        return number(float(text))
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}" if value else "0"


METRICS: Mapping[str, str] = {
    "eval_loss": "eval loss",
    "loss": "loss",
    "loss_fall": "loss fall",
}
"""What a study may rank by, as a title; any other metric is called by its own name."""


def metric(name: str) -> str:
    """The title of what a study ranks by."""
    return METRICS.get(name, name)


_IN_A_COLUMN: Mapping[str, str] = {
    "perplexity": "perpl.",
    "tokens_per_s": "tokens/s",
    "clip_fraction": "clipped",
    "mem_peak": "peak",
}


def metric_column(name: str) -> str:
    """The title of what a study ranks by over a column, in at most ten characters."""
    if name in METRICS:
        return METRICS[name]
    own = name.removeprefix("eval_").removeprefix("reward_")
    return _IN_A_COLUMN.get(own, own.replace("_", " "))


ABBREVIATIONS: Mapping[str, str] = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch",
    "gradient_accumulation_steps": "accum",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "epochs",
    "warmup_ratio": "warmup",
    "weight_decay": "decay",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "cutoff_len": "cutoff",
    "max_grad_norm": "clip",
    "gradient_checkpointing": "ckpt",
    "quantization_bit": "bits",
}
"""Short titles of columns; the full names stand in the detail and in every file."""


def title(key: str) -> str:
    """The title of a column for the parameter `key`."""
    name = key.rpartition(".")[2]
    return ABBREVIATIONS.get(name, name)


def settings_line(settings: Mapping[str, Scalar]) -> str:
    """Settings in one line, as `lr 3e-4  rank 16`."""
    return "  ".join(f"{title(key)} {setting(value)}" for key, value in settings.items())


def plural(count: int, word: str) -> str:
    """`1 trial`, `2 trials`."""
    if count == 1:
        return f"1 {word}"
    if word.endswith("y"):
        return f"{count} {word[:-1]}ies"
    return f"{count} {word}es" if word.endswith("s") else f"{count} {word}s"
