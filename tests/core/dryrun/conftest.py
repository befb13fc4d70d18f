"""Models that are nothing but a config.json, and a way to prove runs of them in this process."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  (before any proof: one imports it without its compiler)
import pytest

from core.dryrun.prove import prove
from core.memory.forecast import Forecast, Lengths, Target
from core.profile import Profile, loads

GPU = Target(kind="cuda", total=24 * 2**30, free=24 * 2**30, capability=(8, 0), context=0)
LENGTHS = Lengths(128, 0)
HOST = Target(kind="cpu", total=2**34, free=2**34, context=0)
LLAMA = {
    "model_type": "llama", "vocab_size": 2000, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip

MakeModel = Callable[..., Path]
MakeProfile = Callable[..., Profile]
ProveRun = Callable[..., Forecast]


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> None:
    """Each proof looks for garbage: among all that has been imported it would take longer than the proof."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A folder with a config.json: a small Llama's, with the given changes."""

    def make(**changes: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
        return tmp_path

    return make


@pytest.fixture
def make_profile(make_model: MakeModel) -> MakeProfile:
    """A profile of such a model; settings are full keys with dots replaced by two underscores."""

    def make(config: dict[str, Any] | None = None, **settings: Any) -> Profile:
        text = f'[model]\nmodel_name_or_path = "{make_model(**(config or {}))}"\n[data]\ndataset = "demo"\n'
        return loads(text).with_changes({k.replace("__", "."): v for k, v in settings.items()})

    return make


@pytest.fixture
def prove_run(make_profile: MakeProfile) -> ProveRun:
    """The proof of such a profile."""

    def run(
        target: Target = GPU,
        lengths: Lengths = LENGTHS,
        config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Forecast:
        return prove(make_profile(config, **settings), target, lengths)

    return run
