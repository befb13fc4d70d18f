"""A world with simple memory: what tests of the search hold both the closed form and the dry run to.

Activations are in proportion to batch, length and layers that are not checkpointed; everything else is a sum. A test
says how large the parts are; `needed` is the truth, and the closed form may be wrong by a factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.memory.architecture import read_config
from core.memory.forecast import GIB, Category, Forecast, Lengths, Target, Tier
from core.memory.models.shape import Architecture
from core.memory.prover import ProofError
from core.profile import Profile, from_document

SHAPE: Architecture = read_config(
    {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
    }
)  # fmt: skip
"""An 8B model."""
LENGTHS = Lengths(2048, 2048, measured=True)


def profile(**tables: dict[str, Any]) -> Profile:
    """A LoRA profile with an effective batch of 16 and bf16."""
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "m"},
        "data": {"dataset": "d", "cutoff_len": 2048},
        "train": {
            "precision": "bf16", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
        },
    }  # fmt: skip
    for name, table in tables.items():
        document[name] = {**document.get(name, {}), **table}
    return from_document(document)


def gpu(gib: float, **more: Any) -> Target:
    """A GPU that gives the allocator exactly `gib` GiB."""
    size = int(gib * GIB)
    return Target(kind="cuda", name="Fake", total=size, free=size, context=0, **more)


@dataclass
class World:
    """GiB of the parts of a run at batch 1 and 2048 tokens, and what the search asked for."""

    weights: float = 16.0
    states: float = 1.0
    """Of AdamW; a quarter in 8 bits, nothing where they are on the host."""
    gradients: float = 0.5
    """Kept alive by accumulation; without it they are gone when activations peak."""
    activations: float = 4.0
    logits: float = 2.0
    estimate_error: float = 1.0
    """What the closed form says, as a share of the truth."""
    tier: Tier = "proof"
    refuses: tuple[str, ...] = ()
    """Parameters whose change the worker refuses."""
    impossible: str = ""
    proven: list[Profile] = field(default_factory=list)
    estimates: int = 0

    def forecast(self, profile: Profile, lengths: Lengths) -> Forecast:
        """The truth."""
        parts = {category: int(size * GIB) for category, size in self._parts(profile, lengths)}
        total = sum(parts.values())
        return Forecast(
            tier=self.tier, allocated=total, reserved=total, needed=total, context=0, parts=parts,
            moments={"backward": total}, peak="backward",
        )  # fmt: skip

    def _parts(self, profile: Profile, lengths: Lengths) -> list[tuple[Category, float]]:
        train, method = profile.train, profile.method
        full = method.finetuning_type == "full"
        bits = profile.model.quantization_bit or 16
        tokens = min(lengths.train, profile.data.cutoff_len) / 2048
        tokens *= train.per_device_train_batch_size
        kept = 1.0
        if train.gradient_checkpointing:
            kept = 1 - 0.9 / train.gradient_checkpointing_every
        if train.offload_activations:
            kept *= 0.2
        states = self.states if full or method.finetuning_type == "lora" else self.states / 2
        if "8bit" in train.optim:
            states /= 4
        if train.optim == "adafactor" or train.offload_optimizer or "paged" in train.optim:
            states = 0.0
        shares = profile.resources.gpus_per_trial
        whole = shares if profile.resources.sharding == "fsdp" else 1
        states /= shares if profile.resources.sharding != "ddp" else 1
        alive = full and train.gradient_accumulation_steps > 1
        logits = self.logits * tokens if not train.loss_chunk_tokens else 0.1
        return [
            ("weights", (self.weights * bits / 16 if not full else self.weights) / whole),
            ("optimizer", states),
            ("gradients", self.gradients * (8 if full else 1) if alive or not full else 0.0),
            ("activations", self.activations * tokens * kept),
            ("logits", logits),
        ]

    def prove(self, profiles: Sequence[Profile]) -> Sequence[Forecast | ProofError]:
        """Dry runs."""
        self.proven.extend(profiles)
        return [self._proof(profile) for profile in profiles]

    def _proof(self, asked: Profile) -> Forecast | ProofError:
        if self.impossible:
            return ProofError(self.impossible)
        plain = profile()
        for name in self.refuses:
            if asked.value(name) != plain.value(name):
                return ProofError(f"{name} does not work with this model")
        return self.forecast(asked, LENGTHS)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "World":
        """Put this world's closed form in the place of the real one."""

        def estimate(
            profile: Profile, architecture: Architecture, target: Target, lengths: Lengths
        ) -> Forecast:
            self.estimates += 1
            true = self.forecast(profile, lengths)
            needed = int(true.needed * self.estimate_error)
            return Forecast(
                tier="estimate", allocated=true.allocated, reserved=needed, needed=needed, context=0,
                parts=true.parts, moments=true.moments, peak="backward",
            )  # fmt: skip

        monkeypatch.setattr("core.memory.remedies.candidates.estimate", estimate)
        monkeypatch.setattr("core.memory.limits.estimate", estimate)
        return self
