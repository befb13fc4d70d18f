"""One trial from its files to its report: load, read, train, save."""

import gc
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data_size import PADDED_TO
from core.logged import STAGE_LOGS
from core.profile import Profile, dataset_files, eval_files, model_path
from core.study.files import (
    CHECKPOINTS,
    METRICS_FILE,
    OUTPUT,
    RUN_FILE,
    TENSORBOARD,
    Moment,
    Phase,
    TrialTask,
    WorkerReport,
    write_record,
)
from core.study.metrics import MetricsWriter, read_points
from core.train import checkpoints, limits
from core.train.data import batches as data
from core.train.data.chat import ChatEncoder, make_encoder
from core.train.data.packing import packs_apart
from core.train.data.reading import Reading
from core.train.data.stored import group_sizes
from core.train.distributed.ranks import ALONE, Place, join, leave
from core.train.errors import SettingsError
from core.train.model.source import find_model
from core.train.optimizers import build_optimizer, check_optimizer
from core.train.plan import Plan, make_plan, order_seed
from core.train.precision import Numbers, decide
from core.train.resumption import write_settings
from core.train.signals import Requests
from core.train.startup import Stopwatch, hide_unused


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
        self._stage: Any = None

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
        rows = examples.train
        counts = len(rows) * self._profile.passes(), len(examples.evaluation)
        return make_plan(self._profile.train, self._task, *counts, rows.tokens, group_sizes(rows))

    def _train(self, on_nothing: Callable[[], None]) -> None:
        """Train from where the attempt begins; `on_nothing` is called where there is nothing left to train."""
        from core.train.conductor import Arrived

        begins = self._beginning.checkpoint
        try:
            self._trainer.train(resume_from_checkpoint=None if begins is None else str(begins))
        except Arrived:
            on_nothing()
            self._trainer.take_best()
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
            reading = self._reading()
            begun = pool.submit(reading.begin)
            numbers = self._start_libraries()
            self._watch.mark("imports")
            from core.train.model.build import check_fits, load_tokenizer

            self.phase = "load"
            with self._ranks.in_turn():
                # What has to be fetched or unpacked is so once, by rank 0.
                source = find_model(profile, self._folder / "unpacked", self._requests.check)
            tokenizer = load_tokenizer(profile, source)
            self._watch.mark("tokenizer")
            self.phase = "data"
            begun.result()
            encoder = make_encoder(tokenizer, profile)
            apart = packs_apart(table, profile.method.stage)
            if apart:
                from core.train.model.isolation import check_apart, check_kind

                check_kind(profile, source)
            tokenised = pool.submit(reading.examples, encoder, self._go_on)
            self._requests.check()
            self.phase = "load"
            # A model that is to be sharded has to pass through the host's memory: one GPU may not hold all of it.
            device = "cpu" if self._sharding == "fsdp" else self._task.device
            model = self._stage.load_model(profile, source, numbers, device, self._folder)
            self._watch.mark("model")
            self.phase = "data"
            examples = tokenised.result()
            self._watch.mark("data")
        self._requests.check()
        check_fits(model, examples.largest, examples.longest, model_path(profile))
        if apart:
            check_apart(model, model_path(profile))
        return Loaded(model, tokenizer, encoder, examples, numbers)

    def _reading(self) -> Reading:
        """What reads the trial's data, and shares it with the other trials of the study."""
        profile = self._profile
        return Reading(
            profile.data,
            profile.method.stage,
            dataset_files(profile),
            eval_files(profile),
            profile.train.data_seed,
            self._folder / self._task.cache if self._task.cache is not None else None,
            self._task.full_rows,
        )

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
        hide_unused(self._profile)
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
        from core.train.stages.choice import stage_of

        self._stage = stage_of(self._profile)
        # What was imported stays: looking for garbage need not go through it ever again.
        gc.freeze()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        limits.cap_memory(self._profile.memory.limit_gib, self._task.device)
        self._memory = self._meet()
        numbers = decide(self._profile.train, self._profile.method, self._task.device)
        # It says here what it cannot do, and not after the model has been loaded.
        check_optimizer(self._profile.train, self._task.device)
        transformers.set_seed(self._profile.train.seed)
        return numbers

    def _meet(self) -> Any:
        """Meet the other ranks, where there are some; returns what measures memory."""
        from core.train.moments import Memory

        if self._place is None:
            return Memory(self._task.device)
        from core.train.distributed.together import AgreedRequests, SharedMemory

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

        task, train, examples = self._task, self._profile.train, loaded.examples
        pad = loaded.tokenizer.pad_token_id
        shared = {
            "collator": self._stage.collator(
                loaded.tokenizer.eos_token_id if pad is None else pad,
                PADDED_TO if task.device == "cuda" else 1,
            ),
            "order_seed": order_seed(train),
            "plan": plan,
            "schedule": make_schedule(train, task, plan, self._beginning.probe_end),
            "requests": self._requests,
            "on_phase": self._enter,
            "on_rehearsed": self._leave_out,
            "memory": self._memory,
            "make_optimizer": lambda model: build_optimizer(
                model, train, task.device, self._sharding, self._profile.method
            ),
            "ranks": self._ranks,
            "model": loaded.model,
            "args": self._stage.arguments(
                self._profile, task, plan, loaded.numbers, self._folder / CHECKPOINTS, self._ranks
            ),
            "train_dataset": examples.train,
            "eval_dataset": examples.evaluation if plan.evaluate_every is not None else None,
        }
        trainer = self._stage.trainer(loaded.tokenizer, shared)
        trainer.remove_callback(PrinterCallback)
        self._trainer = trainer
        self._reporter = self._make_reporter(writer)
        trainer.add_callback(self._reporter)
        return self._make_conductor(plan, lambda: self._first_step(loaded, plan))

    def _make_reporter(self, writer: MetricsWriter | None) -> Any:
        """Build what writes and says how the run goes, on rank 0, and what takes part in it on the others."""
        if writer is None:
            from core.train.distributed.together import Follower

            return Follower(self._memory)
        from core.train.report import Reporter
        from core.train.utilisation import Utilisation

        return Reporter(
            self._folder / TENSORBOARD,
            writer,
            self._task.attempt,
            self._memory,
            self._trainer.count_tokens,
            Utilisation(self._task.device),
            STAGE_LOGS[self._profile.method.stage],
        )

    def _make_conductor(self, plan: Plan, on_first_step: Callable[[], None]) -> Any:
        """Build what decides how the run goes on, and give it to the Trainer."""
        from core.train.conductor import Conductor, EarlyStop, RangeEnd
        from core.train.judging import judged_by
        from core.train.settings import saves_as_it_goes, saves_evaluated

        task, train = self._task, self._profile.train
        early, metric, begun = None, judged_by(self._profile), self._beginning.checkpoint
        if train.early_stopping_patience is not None and plan.evaluate_every is not None:
            # The losses that a probe's own decay came to are out of reach for the rate that comes back.
            since = (self._beginning.probe_end or 0) if task.schedule == "own" else 0
            early = EarlyStop(train.early_stopping_patience, metric, since)
        conductor = Conductor(
            self._requests,
            plan,
            early,
            save_every=train.save_steps if saves_as_it_goes(train, task) else None,
            saves_evaluated=saves_evaluated(train, task),
            save_waiting=task.kind != "range",
            keep_last=self._keeps_last(),
            keeper=checkpoints.Keeper(
                metric,
                train.save_total_limit,
                train.save_best if saves_evaluated(train, task) else None,
                None if begun is None else checkpoints.step_of(begun.name),
            )
            if self._ranks.first
            else None,
            new_best=self._beginning.new_best,
            record=(lambda folder: write_settings(folder, self._profile))
            if self._ranks.first
            else None,
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
        from core.train.log import say
        from core.train.opening import opening_lines, run_info

        self._watch.mark("first batch")
        if not self._ranks.first:
            return
        profile, task, began = self._profile, self._task, self._beginning
        run = run_info(
            task, plan, loaded.model, loaded.examples, loaded.numbers, began, self._watch.total()
        )
        write_record(self._folder / RUN_FILE, run)
        for line in opening_lines(profile, task, plan, run, began, loaded.tokenizer):
            say(line)
        if task.resume_from is not None:
            say(f"goes on after step {self._trainer.state.global_step:,}")
        say(f"{run.device}, {run.precision}")
        say(f"started in {self._watch.describe()}")

    def _save_output(self, loaded: Loaded) -> None:
        """Write the weights and the tokenizer to `output/`, which is there whole or not at all."""
        from core.train.model.weights import weights_to_save

        weights = weights_to_save(loaded.model, self._ranks)
        if not self._ranks.first:
            return
        output = self._folder / OUTPUT
        partial = self._folder / checkpoints.PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        self._stage.save(loaded.model, partial, weights)
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
        train = self._profile.train
        if self._task.kind == "full" and (train.save_steps or train.save_best):
            return
        if self._keeps_last():
            checkpoints.keep_only(self._folder, last)
        else:
            shutil.rmtree(self._folder / CHECKPOINTS, ignore_errors=True)
