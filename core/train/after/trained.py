"""A trained model held as it was while it trained, and the model before training beside it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from core.study.after import Device, Dtype, Who
from core.train.after import loading
from core.train.after.origin import Origin, base_source
from core.train.after.speak import Speaker
from core.train.errors import SettingsError
from core.train.model.source import Source, needs_bitsandbytes
from core.train.precision import Numbers, decide


class Trained:
    """The tuned model and, where it can be had, its base. The base of an adapter is the same model with the adapter
    switched off; that of a whole model is loaded when it is first asked."""

    def __init__(self, origin: Origin, device: Device, dtype: Dtype = "auto") -> None:
        """Load the tuned model.

        Raises:
            UsageError: weights or base cannot be used.
        """
        import_libraries(origin)
        self.origin = origin
        self.device = device
        self.numbers = numbers_of(origin, device)
        self._dtype = None if dtype == "auto" else loading.torch_dtype(dtype)
        self.model = self._load_tuned()
        self._base: Any = None

    @property
    def has_base(self) -> bool:
        """Whether the model before training is known."""
        return self.origin.adapter is not None or bool(self.origin.base)

    @property
    def cost_of_base(self) -> str:
        """What the base takes besides, in words; "" where it is nothing."""
        if self.origin.adapter is not None or self._base is not None:
            return ""
        return "the base model is loaded beside it, which takes as much memory again"

    def speaker(self, who: Who) -> Speaker:
        """The tuned model or the base.

        Raises:
            UsageError: the base cannot be loaded.
        """
        if who == "tuned":
            return Speaker(self.model)
        if self.origin.adapter is not None:
            return Speaker(self.model, self.model.disable_adapter)
        if self._base is None:
            self._base = self._load_base()
        return Speaker(self._base)

    def computing(self) -> AbstractContextManager[Any]:
        """Computes in the numbers that training computed in."""
        return computing(self.numbers, self.device)

    def _load_tuned(self) -> Any:
        origin, kind = self.origin, self.numbers.trained
        if origin.adapter is None:
            folder = str(origin.folder)
            source = Source(folder, (folder,))
            return loading.load_whole(
                source, origin.profile.model, origin.kind, self._dtype or kind, self.device
            )
        adapted = loading.add_adapter(self._load_base(), origin.folder)
        for name, weight in adapted.named_parameters():
            if ("lora_" in name or "modules_to_save" in name) and weight.is_floating_point():
                weight.data = weight.data.to(kind)
        return adapted

    def _load_base(self) -> Any:
        import transformers

        from core.train.model import build

        origin = self.origin
        source = base_source(origin)
        whole = origin.adapter is None
        loader = transformers.AutoModelForCausalLM
        settings: dict[str, Any] = {}
        if origin.kind == "reward model":
            loader, settings = transformers.AutoModelForSequenceClassification, {"num_labels": 1}
        kind = self._dtype or (self.numbers.trained if whole else self.numbers.frozen)
        return build.load_base(
            origin.profile, source, self.numbers, self.device, loader, kind, ("score",), **settings
        ).eval()


def numbers_of(origin: Origin, device: Device) -> Numbers:
    """The numbers that the run computed in; where this device has none of them, those that it has."""
    train, method = origin.profile.train, origin.profile.method
    if not origin.known and origin.adapter is None:
        method = method.model_copy(update={"finetuning_type": "full"})
    try:
        return decide(train, method, device)
    except SettingsError:
        anything = train.model_copy(update={"precision": "auto"})
        free = method.model_copy(update={"adapter_precision": "auto"})
        return decide(anything, free, device)


@contextmanager
def computing(numbers: Numbers, device: Device) -> Iterator[None]:
    """What the Trainer computes within: mixed precision where the run has it."""
    import torch

    mixed = numbers.name in ("bf16", "fp16")
    with torch.autocast(device, dtype=numbers.compute) if mixed else nullcontext():
        yield


def import_libraries(origin: Origin) -> None:
    """Import what is slow, and nothing that this run does not need."""
    import sys

    if not needs_bitsandbytes(origin.profile):
        # peft imports bitsandbytes where it is installed: None is Python's way to say that a module is not there.
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
