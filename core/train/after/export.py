"""`tunedeck _export`: one model folder of a run's weights and their base, checked before it is there.

Everything is written to a folder beside the one that is asked for and renamed at the end. What was written is loaded
again and has to say what the trained weights say. Only one model is in memory at a time.
"""

import contextlib
import gc
import shutil
from pathlib import Path
from typing import Any

from core.study.after import Check, ExportReply, ExportRequest
from core.study.files import METRICS_FILE, RUN_FILE, RunInfo, read_record
from core.study.metrics import read_points
from core.train.after import curve, likeness, loading
from core.train.after.card import Facts, model_card
from core.train.after.folders import (
    UnlikeError,
    check_place,
    check_room,
    check_size,
    files_of,
    partial_folder,
    size_of,
)
from core.train.after.merge import check_finite, merge, settle_ties
from core.train.after.origin import Origin, base_source, check_full_precision, find_origin
from core.train.after.process import Line, answer_one
from core.train.after.serving import serve_adapter_lines, serve_lines
from core.train.errors import ModelError, SettingsError, first_line
from core.train.model.source import Source
from core.version import VERSION


def main(argv: list[str]) -> int:
    """Meet the one request on the standard input; 0 done, 1 failed, 2 the input is wrong."""
    if argv:
        print("usage: tunedeck _export", flush=True)
        return 2
    return answer_one(ExportRequest, lambda request, line: line.say(export(request, line)))


def export(request: ExportRequest, line: Line) -> ExportReply:
    """Make the folder `request.output`.

    Raises:
        UsageError: weights, base or folder cannot be used.
        UnlikeError: the result is not what was trained; it is kept aside.
        OSError: the disk is full.
    """
    origin = find_origin(request.weights)
    output = Path(request.output)
    check_size(request.max_shard_size)
    check_place(origin, output, request.overwrite)
    line.progress("loading libraries")
    _import_libraries()
    with partial_folder(output, request.overwrite) as partial:
        if request.adapter_only:
            return _export_adapter(origin, output, partial)
        return _Export(origin, request, line).run(output, partial)


class _Export:
    """An export of whole weights."""

    def __init__(self, origin: Origin, request: ExportRequest, line: Line) -> None:
        self._origin = origin
        self._request = request
        self._line = line
        self._notes: list[str] = []

    def run(self, output: Path, partial: Path) -> ExportReply:
        origin, line = self._origin, self._line
        source = base_source(origin) if origin.adapter is not None else None
        tokenizer = loading.load_tokenizer(origin, source)
        prompts = likeness.prompts(tokenizer)
        model, reference, effect, checks = self._model(source, prompts)
        dtype = loading.dtype_name(model.dtype)
        parameters = sum(p.numel() for p in model.parameters())
        _check_disk(partial, model)
        line.progress("writing")
        prepare_configs(model, tokenizer, origin)
        save(model, tokenizer, partial, self._request.max_shard_size)
        # Only one model at a time is in memory.
        del model
        gc.collect()
        line.progress("checking what was written")
        checks.append(self._check_written(partial, prompts, reference, dtype))
        trusted = origin.profile.model.trust_remote_code
        serve = serve_lines(str(output), origin.kind, trusted=trusted)
        facts = Facts(
            output.name, origin.base_name, origin.kind, dtype, parameters,
            origin.profile if origin.known else None, *_course(origin), checks, effect,
            serve_lines(output.name, origin.kind, trusted=trusted),
        )  # fmt: skip
        _write_card(partial, facts)
        self._judge(checks, partial, effect)
        return ExportReply(
            output=str(output),
            kind=origin.kind,
            dtype=dtype,
            parameters=parameters,
            files=files_of(partial),
            bytes=size_of(partial),
            effect=effect,
            checks=tuple(checks),
            serve=serve,
            notes=tuple(self._notes),
        )

    def _model(
        self, source: Source | None, prompts: list[list[int]]
    ) -> tuple[Any, likeness.Logits, float | None, list[Check]]:
        """The model to write, what the trained one says of the prompts, how far it moved from the base, and how the
        merged one compares."""
        origin, request = self._origin, self._request
        dtype = loading.torch_dtype(request.dtype)
        if source is None:
            return *self._whole(dtype, prompts), None, []
        check_full_precision(source)
        self._line.progress("loading the base model")
        base = loading.load_base(origin, dtype, request.device)
        name = loading.dtype_name(base.dtype)
        adapted = loading.add_adapter(base, origin.folder)
        check_finite(adapted, "loading the adapter")
        self._line.progress("asking base and adapter")
        reference = likeness.logits_of(adapted, prompts, origin.kind)
        effect = None
        if origin.kind == "model":
            # The base of a reward model has no score head to compare with, but for a random one.
            with adapted.disable_adapter():
                before = likeness.logits_of(adapted, prompts, origin.kind)
            effect = likeness.difference(before, reference)[0]
        self._line.progress("merging")
        merged = merge(adapted)
        check = likeness.compare(
            "merged", reference, likeness.logits_of(merged, prompts, origin.kind), name
        )
        return merged, reference, effect, [check]

    def _whole(self, dtype: Any, prompts: list[list[int]]) -> tuple[Any, likeness.Logits]:
        """Weights that were trained whole, in the type to write; what they say is asked as they were trained."""
        import torch

        origin, request = self._origin, self._request
        self._line.progress("loading the model")
        folder = str(origin.folder)
        source = Source(folder, (folder,))
        model = loading.load_whole(
            source, origin.profile.model, origin.kind, "auto", request.device
        )
        check_finite(model, "training")
        reference = likeness.logits_of(model, prompts, origin.kind)
        wanted = _stored_dtype(origin) if dtype == "auto" else dtype
        if wanted is not None and wanted != model.dtype:
            model = model.to(wanted)
            model.config.dtype = wanted
            check_finite(model, f"rounding to {loading.dtype_name(wanted)}")
        assert isinstance(model, torch.nn.Module)
        return model, reference

    def _check_written(
        self, partial: Path, prompts: list[list[int]], reference: likeness.Logits, dtype: str
    ) -> Check:
        """Load what was written, as its users will, and compare it."""
        origin = self._origin
        folder = str(partial)
        model = loading.load_whole(
            Source(folder, (folder,)),
            origin.profile.model,
            origin.kind,
            "auto",
            self._request.device,
        )
        said = likeness.logits_of(model, prompts, origin.kind)
        return likeness.compare("written", reference, said, dtype)

    def _judge(self, checks: list[Check], partial: Path, effect: float | None) -> None:
        failed = next((c for c in checks if not c.passed), None)
        if failed is not None:
            what = {"merged": "the merged model", "written": "what was written"}[failed.what]
            raise UnlikeError(
                f"{what} does not say what the trained weights say: its logits are off by {failed.error:.2g} of their "
                f"size, and {failed.tolerance:g} is allowed; --dtype fp32 rounds nothing. It is kept in {partial}",
                str(partial),
            )
        if effect is not None and effect <= min(c.tolerance for c in checks):
            self._notes.append(
                f"training moved the logits by {effect:.2g} of their size, less than rounding may: --dtype fp32 shows "
                "whether all of it came through"
            )


def prepare_configs(model: Any, tokenizer: Any, origin: Origin) -> None:
    """Say in the model's configurations what those who serve it need: which tokens end an answer, which one pads, and
    how to sample."""
    settle_ties(model)
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    if model.config.get_text_config().pad_token_id is None:
        pad = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    if origin.kind == "reward model":
        # vLLM and transformers' pipeline return its scores as they are; without it, they put a sigmoid on top.
        model.config.problem_type = "regression"
        return
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    known = [ends] if isinstance(ends, int) else list(ends or [])
    end = end_of_answer(tokenizer)
    if end is not None and end not in known:
        known.append(end)
    config.eos_token_id = known[0] if len(known) == 1 else known or None
    if config.pad_token_id is None:
        config.pad_token_id = model.config.pad_token_id
    if origin.known:
        _set_sampling(config, origin)


def end_of_answer(tokenizer: Any) -> int | None:
    """The special token with which the chat template ends an answer; None where it has none."""
    mark = "Zq7"
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": mark}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:
        return None
    after = text[text.rindex(mark) + len(mark) :] if mark in text else ""
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    special |= set(tokenizer.all_special_ids)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    return next((int(i) for i in ids if i in special), None)


def save(model: Any, tokenizer: Any, folder: Path, max_shard_size: str) -> None:
    """Write model and tokenizer.

    Raises:
        OSError: the disk is full.
    """
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)


def _set_sampling(config: Any, origin: Origin) -> None:
    """What the profile's [generation] says otherwise than by default; 1 and 0 there mean: as it is."""
    table = origin.profile.generation
    wanted = {
        "temperature": table.temperature,
        "top_p": table.top_p,
        "top_k": table.top_k,
        "repetition_penalty": table.repetition_penalty,
    }
    usual = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    given = {key: value for key, value in wanted.items() if value != usual[key]}
    for key, value in given.items():
        setattr(config, key, value)
    sampled = any(getattr(config, key, None) not in (None, usual[key]) for key in
                  ("temperature", "top_p", "top_k"))  # fmt: skip
    if sampled:
        # transformers refuses to save settings that do nothing.
        config.do_sample = True


def _export_adapter(origin: Origin, output: Path, partial: Path) -> ExportReply:
    """Copy the adapter, with the tokenizer and a card."""
    if origin.adapter is None:
        raise SettingsError(
            f"{origin.folder} holds a whole model and no adapter; leave --adapter-only out"
        )
    first = origin.profile.model.adapter_name_or_path
    if first is not None:
        raise SettingsError(
            f"the adapter of {origin.folder} belongs to {origin.base_name} with the adapter {first} merged into it, "
            "and is wrong on anything else; leave --adapter-only out, which makes one model of all"
        )
    weights = _adapter_weights(origin.folder)
    check_room(partial, sum(f.stat().st_size for f in origin.folder.iterdir() if f.is_file()))
    dtype, parameters = "", 0
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise ModelError(f"the adapter's {name} holds what is no number: this run diverged")
        dtype, parameters = loading.dtype_name(weight.dtype), parameters + weight.numel()
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        if (origin.folder / name).is_file():
            shutil.copy2(origin.folder / name, partial / name)
    # A base that is not here may have a tokenizer, which then only who has the base can load.
    with contextlib.suppress(ModelError):
        _tokenizer_of(origin).save_pretrained(partial)
    plain = not origin.adapter.get("use_dora") and not origin.adapter.get("modules_to_save")
    rank = int(origin.adapter.get("r") or 8)
    serve = serve_adapter_lines(str(output), origin.base, rank, plain)
    facts = Facts(
        output.name, origin.base_name, "adapter", dtype, parameters,
        origin.profile if origin.known else None, *_course(origin), (), None, (),
    )  # fmt: skip
    _write_card(partial, facts)
    notes = (
        ()
        if plain
        else ("vLLM takes no DoRA and no whole modules: export the merged model to serve it there",)
    )
    return ExportReply(
        output=str(output), kind="adapter", dtype=dtype, parameters=parameters,
        files=files_of(partial), bytes=size_of(partial), serve=serve, notes=notes,
    )  # fmt: skip


def _tokenizer_of(origin: Origin) -> Any:
    """The tokenizer that lies beside an adapter, else that of its base."""
    if loading.has_tokenizer(origin.folder):
        return loading.load_tokenizer(origin, None)
    return loading.load_tokenizer(origin, base_source(origin))


def _adapter_weights(folder: Path) -> dict[str, Any]:
    from peft import load_peft_weights

    try:
        weights: dict[str, Any] = load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        raise ModelError(f"the adapter {folder} is damaged: {first_line(error)}") from None
    return weights


def _check_disk(partial: Path, model: Any) -> None:
    tied = {id(p): p for p in model.parameters()}
    check_room(partial, sum(p.numel() * p.element_size() for p in tied.values()))


def _stored_dtype(origin: Origin) -> Any:
    """The type in which the base model is stored: training holds weights in more than they are used with. None where
    that is not known."""
    from transformers import AutoConfig

    if not origin.known:
        return None
    try:
        source = base_source(origin)
        config = AutoConfig.from_pretrained(
            source.places[0],
            revision=origin.profile.model.model_revision or "main",
            trust_remote_code=origin.profile.model.trust_remote_code,
        )
    except Exception:
        return None
    return getattr(config, "dtype", None)


def _write_card(folder: Path, facts: Facts) -> None:
    (folder / "README.md").write_text(model_card(facts), "utf-8")
    picture = curve.picture(facts.points)
    if picture:
        (folder / curve.PICTURE).write_text(picture, "utf-8")


def _course(origin: Origin) -> tuple[list[Any], dict[str, str]]:
    """The points of the run and the versions that it ran with, tunedeck's own among them."""
    if origin.trial is None:
        return [], {"tunedeck": VERSION}
    run = read_record(origin.trial / RUN_FILE, RunInfo)
    versions = run.versions if run is not None else {}
    return read_points(origin.trial / METRICS_FILE), {"tunedeck": VERSION, **versions}


def _import_libraries() -> None:
    import sys

    # Nothing here is quantised, and peft imports bitsandbytes where it is installed: None is Python's way to say that
    # a module is not there.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    import peft  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
