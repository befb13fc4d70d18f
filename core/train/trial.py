"""One trial from its files to its report: load, read, train, save."""

import gc
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.data_size import PADDED_TO
from core.profile import Profile, dataset_files, eval_files, model_path
from core.study.files import (
    CHECKPOINTS,
    METRICS_FILE,
    OUTPUT,
    RUN_FILE,
    TENSORBOARD,
    Moment,
    Phase,
    RunInfo,
    TrialTask,
    WorkerReport,
    write_record,
)
from core.study.metrics import MetricsWriter, read_points
from core.train import checkpoints, data, limits
from core.train.chat import ChatEncoder
from core.train.errors import SettingsError
from core.train.examples import Example
from core.train.optimizers import build_optimizer, find_optimizer
from core.train.plan import Plan, make_plan, order_seed
from core.train.precision import Numbers, decide
from core.train.ranks import ALONE, Place, join, leave
from core.train.signals import Requests
from core.train.source import find_model, needs_bitsandbytes
from core.train.startup import Stopwatch


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that training needs."""

    model: Any
    tokenizer: Any
    encoder: ChatEncoder
    examples: data.Examples
    numbers: Numbers


class Trial:
    """A trial in its folder. `phase` says what it is doing; `report` what came of it."""

    def __init__(
        self,
        folder: Path,
        task: TrialTask,
        profile: Profile,
        requests: Requests,
        watch: Stopwatch,
        place: Place | None = None,
    ) -> None:
        """`place` says which rank this process is, where several train the trial together."""
        self.phase: Phase = "start"
        self._folder = folder
        self._task = task
        self._profile = profile
        self._requests = requests
        self._watch = watch
        self._beginning = checkpoints.Beginning()
        self._trainer: Any = None
        self._reporter: Any = None
        self._memory: Any = None
        self._failed = threading.Event()
        self._place = place
        self._ranks = ALONE

    def run(self) -> WorkerReport:
        """Train to the end, or to a pause or stop.

        Raises:
            UsageError: the input is wrong.
            Interrupted: a pause or a stop was asked for before training began.
        """
        self._beginning = checkpoints.find_beginning(self._folder, self._task, self._profile)
        loaded = self._load()
        plan = self._make_plan(loaded.examples)
        writer = MetricsWriter(self._folder / METRICS_FILE) if self._ranks.first else None
        conductor = self._make_trainer(loaded, plan, writer)
        self._watch.mark("trainer")
        self._requests.check()
        if not self._ranks.first:
            import transformers

            # The same adapters to begin with, but noise (dropout, NEFTune) of its own.
            transformers.set_seed((self._profile.train.seed + self._ranks.index) % 2**32)
        gc.enable()
        self.phase = "train"
        self._train(lambda: self._first_step(loaded, plan))
        if writer is not None:
            writer.close()
        if self._trainer.cut_short or conductor.outcome == "stopped":
            return self.report("stopped")
        if self._task.kind == "range":
            # It takes minutes at most: one that is to go on begins again.
            self._drop_checkpoints("")
            return self.report(conductor.outcome)
        checkpoint = f"{CHECKPOINTS}/checkpoint-{self._trainer.state.global_step}"
        if conductor.outcome != "completed":
            if self._task.kind == "probe" and self._ranks.first:
                checkpoints.keep_only(self._folder, checkpoint)
            return self.report(conductor.outcome, checkpoint=checkpoint)
        if self._task.save_model:
            self.phase = "save"
            self._memory.enter("save")
            self._save_output(loaded)
        self._drop_checkpoints(checkpoint)
        self.phase = "done"
        return self.report("completed", checkpoint=checkpoint if self._keeps_last() else None)

    def _make_plan(self, examples: data.Examples) -> Plan:
        lengths = [len(row.ids) for row in examples.train]
        return make_plan(
            self._profile.train, self._task, len(examples.train), len(examples.evaluation), lengths
        )

    def _train(self, on_nothing: Callable[[], None]) -> None:
        """Train from where the attempt begins; `on_nothing` is called where there is nothing left to train."""
        from core.train.conductor import Arrived

        begins = self._beginning.checkpoint
        try:
            self._trainer.train(resume_from_checkpoint=None if begins is None else str(begins))
        except Arrived:
            on_nothing()
            points = read_points(self._folder / METRICS_FILE)
            self._reporter.take_over(points)

    def report(
        self,
        outcome: Any,
        *,
        checkpoint: str | None = None,
        error: str | None = None,
        error_type: str | None = None,
        usage_error: bool = False,
        out_of_memory: bool = False,
    ) -> WorkerReport:
        """How the trial ended, with what was measured up to now."""
        peak, reserved = (
            self._memory.peaks() if self._memory else (limits.peak_resident_bytes(), None)
        )
        state = getattr(self._trainer, "state", None)
        return WorkerReport(
            attempt=self._task.attempt,
            outcome=outcome,
            phase=self.phase,
            step=state.global_step if state else 0,
            loss=self._reporter.loss if self._reporter else None,
            eval_loss=self._reporter.eval_loss if self._reporter else None,
            checkpoint=checkpoint,
            error=error,
            error_type=error_type,
            usage_error=usage_error,
            peak_memory=peak,
            peak_reserved=reserved,
            moment=self._moment() if out_of_memory else None,
            moments=self._memory.moments() if self._memory else None,
            context_bytes=self._memory.context() if self._memory else None,
        )

    def _moment(self) -> Moment | None:
        """The part of the run that it is in; None where no model is in play."""
        return None if self.phase in ("start", "data") or not self._memory else self._memory.moment

    def leave(self) -> None:
        """Part with the other ranks, after a run that has not failed."""
        leave(self._ranks)

    def release(self) -> None:
        """Let go of the model and all that hangs on it, and of what was only half written."""
        if self._ranks.first:
            checkpoints.drop_torn(self._folder)
        trainer = self._trainer
        if trainer is not None:
            trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = None

    def _load(self) -> Loaded:
        """The model here, the data in a thread beside it: reading weights and tokenising leave each other room."""
        profile, table = self._profile, self._profile.data
        with ThreadPoolExecutor(max_workers=1) as pool, self._giving_up():
            files = dataset_files(profile), eval_files(profile)
            split = pool.submit(data.read_split, table, *files, profile.train.data_seed)
            numbers = self._start_libraries()
            self._watch.mark("imports")
            from core.train.build import check_fits, load_model, load_tokenizer

            self.phase = "load"
            with self._ranks.in_turn():
                # What has to be fetched or unpacked is so once, by rank 0.
                source = find_model(profile, self._folder / "unpacked", self._requests.check)
            tokenizer = load_tokenizer(profile, source)
            self._watch.mark("tokenizer")
            self.phase = "data"
            rows = split.result()
            encoder = ChatEncoder(
                tokenizer, profile.model.template, table.cutoff_len, table.train_on_prompt
            )
            tokenised = pool.submit(data.build_examples, rows, encoder, table, self._go_on)
            self._requests.check()
            self.phase = "load"
            # A model that is to be sharded has to pass through the host's memory: one GPU may not hold all of it.
            device = "cpu" if self._sharding == "fsdp" else self._task.device
            model = load_model(profile, source, numbers, device)
            self._watch.mark("model")
            self.phase = "data"
            examples = tokenised.result()
            self._watch.mark("data")
        self._requests.check()
        both = [*examples.train, *examples.evaluation]
        largest, longest = max(int(e.ids.max()) for e in both), max(len(e.ids) for e in both)
        check_fits(model, largest, longest, model_path(profile))
        return Loaded(model, tokenizer, encoder, examples, numbers)

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Tell the data's thread when the rest has failed: its end is waited for."""
        try:
            yield
        except BaseException:
            self._failed.set()
            raise

    def _go_on(self) -> None:
        """Raise in the data's thread where there is no use in going on."""
        self._requests.check()
        if self._failed.is_set():
            raise CancelledError

    def _start_libraries(self) -> Numbers:
        """Import what is slow, set the memory cap, and decide the precision."""
        if not needs_bitsandbytes(self._profile):
            # peft imports bitsandbytes where it is installed, and that the whole of torch._inductor: 0.8 s that only a
            # quantised model needs. None is Python's way to say that a module is not there.
            sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
        import torch
        import transformers

        if self._task.threads is not None:
            torch.set_num_threads(self._task.threads)
        if self._task.device == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                "this trial is to run on a GPU, and PyTorch sees none: "
                + (
                    "this PyTorch is built without CUDA"
                    if torch.version.cuda is None
                    else "check the driver with nvidia-smi"
                )
            )
        from core.train import conductor, moments, report, settings  # noqa: F401
        from core.train.stages import sft  # noqa: F401

        # What was imported stays: looking for garbage need not go through it ever again.
        gc.freeze()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        limits.cap_memory(self._profile.memory.limit_gib, self._task.device)
        self._memory = self._meet()
        numbers = decide(self._profile.train, self._profile.method, self._task.device)
        # It says here what it cannot do, and not after the model has been loaded.
        find_optimizer(self._profile.train, self._task.device)
        transformers.set_seed(self._profile.train.seed)
        return numbers

    def _meet(self) -> Any:
        """Meet the other ranks, where there are some; returns what measures memory."""
        from core.train.moments import Memory

        if self._place is None:
            return Memory(self._task.device)
        from core.train.together import AgreedRequests, SharedMemory

        self._ranks = join(self._place, self._task.device)
        self._requests = AgreedRequests(self._requests, self._ranks)
        return SharedMemory(self._task.device, self._ranks)

    @property
    def _sharding(self) -> str | None:
        """How ranks share the work; None where there is one."""
        return self._profile.resources.sharding if self._place else None

    def _make_trainer(self, loaded: Loaded, plan: Plan, writer: MetricsWriter | None) -> Any:
        """Build the Trainer and its callbacks; returns the conductor."""
        from transformers import PrinterCallback

        from core.train.schedule import make_schedule
        from core.train.settings import training_arguments

        task, train, examples = self._task, self._profile.train, loaded.examples
        pad = loaded.tokenizer.pad_token_id
        trainer = self._trainer_kind()(
            collator=data.Collator(
                loaded.tokenizer.eos_token_id if pad is None else pad,
                PADDED_TO if task.device == "cuda" else 1,
            ),
            order_seed=order_seed(train),
            plan=plan,
            schedule=make_schedule(train, task, plan, self._beginning.probe_end),
            requests=self._requests,
            on_phase=self._enter,
            on_rehearsed=self._leave_out,
            memory=self._memory,
            make_optimizer=lambda model: build_optimizer(model, train, task.device, self._sharding),
            model=loaded.model,
            args=training_arguments(
                self._profile, task, plan, loaded.numbers, self._folder / CHECKPOINTS, self._ranks
            ),
            train_dataset=examples.train,
            eval_dataset=examples.evaluation if plan.evaluate_every is not None else None,
        )
        trainer.remove_callback(PrinterCallback)
        self._trainer = trainer
        self._reporter = self._make_reporter(writer)
        trainer.add_callback(self._reporter)
        return self._make_conductor(plan, lambda: self._first_step(loaded, plan))

    def _trainer_kind(self) -> Callable[..., Any]:
        """What makes the Trainer: of this rank, where there are several."""
        if self._sharding is None:
            from core.train.stages.sft import SftTrainer

            return SftTrainer
        from core.train.stages.ranked import RankedTrainer

        return partial(RankedTrainer, ranks=self._ranks, sharding=self._sharding)

    def _make_reporter(self, writer: MetricsWriter | None) -> Any:
        """Build what writes and says how the run goes, on rank 0, and what takes part in it on the others."""
        if writer is None:
            from core.train.together import Follower

            return Follower(self._memory)
        from core.train.report import Reporter

        return Reporter(
            self._folder / TENSORBOARD,
            writer,
            self._task.attempt,
            self._memory,
            self._trainer.count_tokens,
        )

    def _make_conductor(self, plan: Plan, on_first_step: Callable[[], None]) -> Any:
        """Build what decides how the run goes on, and give it to the Trainer."""
        from core.train.conductor import Conductor, EarlyStop, RangeEnd
        from core.train.settings import saves_as_it_goes

        task, train = self._task, self._profile.train
        early = None
        if train.early_stopping_patience is not None and plan.evaluate_every is not None:
            # The losses that a probe's own decay came to are out of reach for the rate that comes back.
            since = (self._beginning.probe_end or 0) if task.schedule == "own" else 0
            early = EarlyStop(train.early_stopping_patience, since)
        conductor = Conductor(
            self._requests,
            plan,
            early,
            save_every=train.save_steps if saves_as_it_goes(train, task) else None,
            save_waiting=task.kind != "range",
            keep_last=self._keeps_last(),
            new_best=self._beginning.continues,
            take_up_window=self._trainer.take_up_window,
            on_first_step=on_first_step,
        )
        ends = RangeEnd() if task.kind == "range" else None
        for callback in (conductor, early, ends):
            if callback is not None:
                self._trainer.add_callback(callback)
        return conductor

    def _enter(self, phase: Phase) -> None:
        self.phase = phase

    def _leave_out(self, seconds: float) -> None:
        self._reporter.leave_out(seconds)

    def _first_step(self, loaded: Loaded, plan: Plan) -> None:
        """Write `run.json` and tell the log what is about to be trained."""
        from core.train.report import say
        from core.train.schedule import describe
        from core.train.trainable import count

        self._watch.mark("first batch")
        if not self._ranks.first:
            return
        trainable, parameters = count(loaded.model)
        examples = loaded.examples
        run = RunInfo(
            attempt=self._task.attempt,
            total_steps=plan.total_steps,
            full_steps=plan.full_steps,
            steps_per_epoch=float(plan.steps_per_epoch),
            train_rows=examples.train_rows,
            eval_rows=examples.eval_rows,
            dropped_rows=examples.dropped,
            trainable_parameters=trainable,
            parameters=parameters,
            precision=loaded.numbers.name,
            device=_device_name(self._task.device),
            versions=_versions(),
            startup_seconds=round(self._watch.total(), 3),
            longest_row=_longest(examples.train),
            longest_eval_row=_longest(examples.evaluation),
            rung_step=plan.rung_step,
            warmup_steps=plan.warmup_steps,
            epoch_tokens=sum(len(row.ids) for row in examples.train),
        )
        write_record(self._folder / RUN_FILE, run)
        method = self._profile.method.finetuning_type
        bits = self._profile.model.quantization_bit
        say(f"model {model_path(self._profile)}, {method}" + (f", {bits} bits" if bits else ""))
        say(
            f"{trainable:,} of {parameters:,} parameters train ({100 * trainable / parameters:.2f} %)"
        )
        say(
            f"{run.train_rows:,} rows to train on, {run.eval_rows:,} to evaluate on, {run.dropped_rows:,} dropped "
            "(nothing to learn within cutoff_len)"
        )
        for line in describe(self._profile.train, self._task, plan, self._beginning.probe_end):
            say(line)
        if self._task.resume_from is not None:
            say(f"goes on after step {self._trainer.state.global_step:,}")
        say(f"{run.device}, {run.precision}")
        say(f"started in {self._watch.describe()}")

    def _save_output(self, loaded: Loaded) -> None:
        """Write the weights and the tokenizer to `output/`, which is there whole or not at all."""
        from core.train.weights import save_weights, weights_to_save

        weights = weights_to_save(loaded.model, self._ranks)
        if not self._ranks.first:
            return
        output = self._folder / OUTPUT
        partial = self._folder / checkpoints.PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        save_weights(loaded.model, partial, weights)
        loaded.tokenizer.chat_template = loaded.encoder.jinja
        loaded.tokenizer.save_pretrained(partial)
        shutil.rmtree(output, ignore_errors=True)
        partial.replace(output)

    def _keeps_last(self) -> bool:
        return self._task.keep_checkpoint and self._task.kind != "range"

    def _drop_checkpoints(self, last: str) -> None:
        """A trial that is done needs none, but for `last` where the task asks for it, and those of a full training
        whose profile asks for them."""
        if not self._ranks.first:
            return
        if self._task.kind == "full" and self._profile.train.save_steps is not None:
            return
        if self._keeps_last():
            checkpoints.keep_only(self._folder, last)
        else:
            shutil.rmtree(self._folder / CHECKPOINTS, ignore_errors=True)


def _longest(rows: list[Example]) -> int | None:
    return max((len(row.ids) for row in rows), default=None)


def _device_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(0)) if device == "cuda" else "CPU"


def _versions() -> dict[str, str]:
    """The versions of the libraries that were loaded."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers"):
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = str(module.__version__)
    return versions
