"""A .gguf file becomes a model folder, once: unpacking its blocks takes many times as long as loading the result.

The folder lies in Hugging Face's cache, which people with a small home have already put where there is room, or, where
that cannot be written, in the trial's folder. transformers does the unpacking, in a process of its own: what it holds
in memory meanwhile must not count against the trial's cap.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.train.errors import ModelError

_FORMAT = 1
"""Part of a folder's name: a later way to convert must not find an earlier one's results."""
_POLL_SECONDS = 0.05
_PROGRAM = Path(__file__).resolve().parents[3] / "tunedeck.py"


def unpacked(file: Path, spare: Path, check: Callable[[], None]) -> Path:
    """The folder that holds `file` as an ordinary model, made now where it is not there yet.

    `spare` is where it is made if Hugging Face's cache cannot be written. `check` is called while waiting and may raise
    to give up.

    Raises:
        ModelError: the file is damaged or holds an architecture that transformers cannot unpack.
    """
    name = _key(file)
    roots = [_cache(), spare]
    for root in roots:
        if (root / name / "config.json").is_file():
            return root / name
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root / f"{name}.lock", check):
                if not (root / name / "config.json").is_file():
                    _convert(file, root / name, check)
            return root / name
        except OSError:
            if root == spare:
                raise
    raise AssertionError("unreachable: the last root returns or raises")


def unpacked_folder(file: Path) -> Path | None:
    """The folder in Hugging Face's cache that holds `file` as an ordinary model already; None where there is none."""
    folder = _cache() / _key(file)
    return folder if (folder / "config.json").is_file() else None


def convert(file: Path, folder: Path) -> None:
    """Unpack `file` into `folder`, which is there whole or not at all; runs in a process of its own.

    Weights are stored as fp16, the precision that GGUF's scales have, and as bf16 where one is too large for that.

    Raises:
        Exception: whatever transformers raises for a file that it cannot read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {"gguf_file": file.name, **_dequantised()}
    for dtype in (torch.float16, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=dtype, **options)
        if all(bool(p.isfinite().all()) for p in model.parameters()):
            break
    # What is saved is an ordinary model; transformers refuses to save one that it calls quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _dequantised() -> dict[str, object]:
    """Newer versions of transformers leave blocks packed where they can, and what is packed cannot train."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _convert(file: Path, folder: Path, check: Callable[[], None]) -> None:
    print(f"unpacking {file.name} (once; the result is kept in {folder})", flush=True)
    command = [sys.executable, "-P", str(_PROGRAM), "_worker", "--unpack", str(file), str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while True:
            try:
                _, error = child.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                check()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode == 0:
        return
    said = error.decode(errors="replace").strip().splitlines()
    reason = said[-1] if said else f"unpacking it ended with {child.returncode}"
    if "No space left" in reason or "quota exceeded" in reason:
        raise OSError(28, f"No space left on device to unpack {file} into", str(folder))
    raise ModelError(f"the model {file} cannot be loaded: {reason}")


@contextmanager
def _locked(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the file lock `path`: trials that start together unpack once."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(_POLL_SECONDS)
        yield


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "tunedeck"


def _key(file: Path) -> str:
    """A name that changes when the file does."""
    status = file.stat()
    identity = f"{_FORMAT} {file.resolve()} {status.st_size} {status.st_mtime_ns}"
    return f"{file.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
