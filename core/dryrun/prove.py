"""A profile's proof: the run that its worker would make, on fake tensors, and what it takes of a device."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from core.data_size import batch_width
from core.dryrun.assumed import Assumed
from core.dryrun.cuda import cuda_semantics, transients
from core.dryrun.errors import CannotProve
from core.dryrun.fused_head import CHUNK, fused_head_on_cuda, head_transients
from core.dryrun.load import Models, load
from core.dryrun.masks import assumed_masks
from core.dryrun.memo import Memo
from core.dryrun.model import read_config
from core.dryrun.optimizers import make_optimizer
from core.dryrun.quantized import dora_reads_4bit, import_bitsandbytes
from core.dryrun.steps import Recipe, Shape, Tokens, Work, run
from core.dryrun.summary import demand, peak
from core.dryrun.tracker import Tracker
from core.memory.allocator import ROUND
from core.memory.estimate.context import context_of, cublas_workspace
from core.memory.estimate.stages import PROVEN
from core.memory.forecast import AMPERE, Forecast, Lengths, Target
from core.profile import Profile
from core.train.data.packing import packs_apart
from core.train.errors import UsageError
from core.train.model.build import check_fits
from core.train.model.isolation import check_positions
from core.train.precision import Numbers, decide

TOKENWISE = ("pt", "sft")
"""Stages that learn tokens, in whose updates nothing looks at data."""
FUSED = ("dpo", "kto")
"""Stages that compute log probabilities with TRL's fused head."""


def prove(profile: Profile, target: Target, lengths: Lengths) -> Forecast:
    """What the run of `profile` on `target` needs, with rows of at most `lengths`.

    Raises:
        CannotProve: the run cannot be simulated, or would not even begin.
    """
    try:
        return _prove(profile, target, lengths)
    except UsageError as error:
        raise CannotProve(str(error)) from None
    finally:
        # The graph of a model is full of cycles.
        gc.collect()


def _prove(profile: Profile, target: Target, lengths: Lengths) -> Forecast:
    if profile.method.stage not in PROVEN:
        raise CannotProve(
            f"the memory of stage {profile.method.stage} is estimated: its updates are not simulated"
        )
    import_libraries(profile.method.stage)
    cuda = target.kind == "cuda"
    numbers = _numbers(profile, target)
    config = read_config(profile)
    shape = _shape(profile, target, lengths)
    with ExitStack() as stack:
        memo = Memo(stack.enter_context(fake_mode()))
        stack.enter_context(assumed_masks(padded=lengths.padded))
        stack.enter_context(_semantics(profile, target))
        assumed = Assumed(_answers(profile, lengths), memo.run)
        tracker = _tracker(profile, config, target, assumed, memo)
        tracker.begin("load", 0)
        models = load(config, profile, numbers, tracker, target)
        model = models.policy
        longest = min(max(lengths.train, lengths.evaluation), profile.data.cutoff_len)
        check_fits(model, 0, longest, profile.model.model_name_or_path)
        if shape.packed:
            check_positions(model, profile.model.model_name_or_path)
        with tracker:
            optimizer = make_optimizer(profile.train, profile.method, model, cuda=cuda)
        recipe = _recipe(profile, numbers, cublas_workspace(target))
        widest = max(shape.length, shape.eval_length)
        work = _work(profile, models, recipe, assumed, widest)
        run(model, optimizer, shape, recipe, tracker, work=work)
    return _forecast(tracker, profile, target, (*models.notes, *_blind_spots(profile, target)))


@contextmanager
def _semantics(profile: Profile, target: Target) -> Iterator[None]:
    """Within it, tensors on the CPU take the ways that they would on `target`."""
    with ExitStack() as stack:
        if target.kind == "cuda":
            stack.enter_context(cuda_semantics(target.assumed_capability))
            if profile.method.stage in FUSED:
                stack.enter_context(fused_head_on_cuda())
        if profile.method.use_dora and import_bitsandbytes() is not None:
            stack.enter_context(dora_reads_4bit())
        yield


def _tracker(
    profile: Profile, config: Any, target: Target, assumed: Assumed, memo: Memo
) -> Tracker:
    """What logs the run, and carries its operations out."""
    cuda, fused = target.kind == "cuda", profile.method.stage in FUSED
    widths = (config.get_text_config().vocab_size, *((CHUNK,) if fused else ()))
    inner = transients() if cuda else {}
    if cuda and fused:
        inner = {**inner, **head_transients(assumed.count)}
    looks = profile.method.stage not in TOKENWISE
    return Tracker(inner, widths, ROUND if cuda else 1, assumed.run if looks else memo.run)


def _work(profile: Profile, models: Models, recipe: Recipe, assumed: Assumed, widest: int) -> Work:
    """What the stage does in an update; `widest` is the widest batch, in tokens."""
    if profile.method.stage in TOKENWISE:
        return Tokens(models.policy, recipe)
    from core.dryrun.judged import Judged

    return Judged(profile, models.policy, models.reference, recipe.autocast, assumed, widest)


def _answers(profile: Profile, lengths: Lengths) -> int:
    """The most tokens that are answers, of a row of a batch."""
    rows = 1 if profile.method.stage == "kto" else 2
    most = profile.data.cutoff_len
    return min(-(-lengths.learnt // rows) or most, most)


def import_libraries(stage: str = "sft") -> None:
    """Import what proofs need: within the fake mode, what a module makes for itself would be fake for good."""
    # Else peft would import it, with its compiler.
    import_bitsandbytes()
    import peft  # noqa: F401

    if stage not in TOKENWISE:
        # TRL, which takes as long to import as all else.
        import core.dryrun.judged  # noqa: F401


def _numbers(profile: Profile, target: Target) -> Numbers:
    # An older GPU emulates bf16 where it is asked for by name.
    bf16 = target.assumed_capability >= AMPERE or profile.train.precision != "auto"
    return decide(profile.train, profile.method, target.kind, bf16)


def _shape(profile: Profile, target: Target, lengths: Lengths) -> Shape:
    train = profile.train

    def width(longest: int) -> int:
        return batch_width(min(longest, profile.data.cutoff_len), cuda=target.kind == "cuda")

    size = train.per_device_train_batch_size, width(lengths.train)
    eval_rows = train.per_device_eval_batch_size or train.per_device_train_batch_size
    eval_size = eval_rows, width(lengths.evaluation)
    packed = packs_apart(profile.data, profile.method.stage)
    eval_packed = packed and profile.method.stage == "pt"
    if profile.model.attn == "flash_attention_2":
        # Packed rows become one long row (core.train.data.batches.Collator).
        size = (1, size[0] * size[1]) if packed else size
        eval_size = (1, eval_size[0] * eval_size[1]) if eval_packed else eval_size
    return Shape(
        *size, train.gradient_accumulation_steps, *eval_size, packed=packed, eval_packed=eval_packed
    )


def _recipe(profile: Profile, numbers: Numbers, workspace: int) -> Recipe:
    return Recipe(
        autocast=numbers.compute if numbers.name in ("bf16", "fp16") else None,
        max_grad_norm=profile.train.max_grad_norm,
        workspace=workspace,
    )


def _blind_spots(profile: Profile, target: Target) -> tuple[str, ...]:
    notes = []
    if target.kind == "cpu":
        notes.append("What the CPU's kernels take while they compute is not seen.")
    elif profile.train.offload_activations or profile.train.offload_optimizer:
        notes.append("Transfers to the host's memory and back are not seen in all their timing.")
    if profile.method.pissa_init and profile.method.finetuning_type == "lora":
        notes.append("What PiSSA's decomposition takes while the model is loaded is not seen.")
    if profile.model.adapter_name_or_path is not None:
        notes.append("What merging an adapter takes while the model is loaded is not seen.")
    if profile.train.optim.startswith("paged"):
        notes.append("How much of a paged optimizer is on the GPU is decided while it runs.")
    return tuple(notes)


def _forecast(
    tracker: Tracker, profile: Profile, target: Target, notes: tuple[str, ...]
) -> Forecast:
    found = peak(tracker)
    parts, size = found.parts, found.size
    reserved = needed = size
    if target.kind == "cuda":
        needs = demand(tracker, expandable=target.expandable)
        reserved, needed = needs.reserved, needs.needed
        # Blocks are not split where little would be left over; what is left counts as allocated.
        parts = parts | {"workspace": parts["workspace"] + max(0, needs.allocated - size)}
        size = max(size, needs.allocated)
    quantized = profile.model.quantization_bit is not None
    return Forecast(
        tier="estimate" if notes else "proof",
        allocated=size,
        reserved=max(reserved, size),
        needed=max(needed, size),
        context=context_of(target, quantized=quantized),
        parts=parts,
        moments=found.moments | {found.moment: size},
        peak=found.moment,
        peak_step=found.update,
        notes=notes,
    )


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """A fake mode in which modules take new parameters where they would change their old ones' content: fake ones
    cannot, as the mode refers to them weakly."""
    before = torch.nn.Module._apply
    torch.nn.Module._apply = _apply
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch.nn.Module._apply = before


def _apply(module: Any, function: Callable[[Any], Any], recurse: bool = True) -> Any:
    if recurse:
        for child in module.children():
            child._apply(function)
    for held in (module._parameters, module._buffers):
        for name, old in held.items():
            if old is None:
                continue
            with torch.no_grad():
                new = function(old)
            if new is old:
                continue
            if isinstance(old, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            held[name] = new
    return module
