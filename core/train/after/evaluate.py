"""`tunedeck _evaluate`: what a model is worth on rows that it was not trained on, with its base beside it."""

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.dataset_info import DataSetError, find_sets
from core.params import DataTable
from core.profile import Profile, dataset_files, eval_files
from core.rows import AnyRow
from core.study.after import EvaluateReply, EvaluateRequest, Result, Sampling, Who
from core.train.after import rouge
from core.train.after.answering import answer_all
from core.train.after.examination import Examination, measurable
from core.train.after.origin import Origin, find_origin
from core.train.after.process import Line, answer_one
from core.train.after.references import Asked, asked, said, with_references
from core.train.data.examples import Prompt
from core.train.errors import DataError, ModelError, SettingsError

_TOKEN_STAGES = ("pt", "sft")
_ANSWERED_AT_ONCE = 8
"""Questions of a batch, where nothing else is said."""


def main(argv: list[str]) -> int:
    """Meet the one request on the standard input; 0 done, 1 failed, 2 the input is wrong."""
    if argv:
        print("usage: tunedeck _evaluate", flush=True)
        return 2
    return answer_one(EvaluateRequest, lambda request, line: line.say(evaluate(request, line)))


def evaluate(request: EvaluateRequest, line: Line) -> EvaluateReply:
    """Measure what `request` names.

    Raises:
        UsageError: weights, base, data or references cannot be used.
        OSError: the answers cannot be written.
    """
    origin = find_origin(request.weights)
    generates = request.generate or request.references is not None
    _check(origin, request, generates)
    profile = measurable(_measured_as(origin), request.device, request.batch_size)
    line.progress("reading rows")
    rows, data = read_rows(profile, request)
    questions = asked(rows) if generates else []
    if request.references is not None:
        questions = with_references(questions, Path(request.references))
    _import_libraries()
    measuring = _Measuring(origin, profile, request, line, rows, questions)
    with tempfile.TemporaryDirectory(prefix="tunedeck-") as spare:
        # Not the trial's own folder: a Trainer leaves traces where it is.
        results = measuring.run(Path(spare))
    if request.output is not None:
        write_answers(Path(request.output), questions, measuring.answers)
    return EvaluateReply(
        rows=measuring.kept,
        dropped=len(rows) - measuring.kept,
        tokens=measuring.tokens,
        data=data,
        results=tuple(results),
        output=request.output,
        notes=tuple(measuring.notes),
    )


class _Measuring:
    """An evaluation under way. `answers` are what the models said, `kept` and `tokens` what they were measured on."""

    def __init__(
        self,
        origin: Origin,
        profile: Profile,
        request: EvaluateRequest,
        line: Line,
        rows: Sequence[AnyRow],
        questions: Sequence[Asked],
    ) -> None:
        self._origin = origin
        self._profile = profile
        self._request = request
        self._line = line
        self._rows = rows
        self._questions = questions
        self.answers: dict[Who, list[str]] = {}
        self.notes: list[str] = []
        self.kept = 0
        self.tokens = 0

    def run(self, folder: Path) -> list[Result]:
        """The tuned model's numbers, and the base's after them where they are asked for."""
        self._line.progress("loading")
        tuned = Examination(folder, self._profile, self._request.device, self._rows, self._tick)
        self._batches, self._what = 0, ""
        loaded = tuned.open()
        examples = loaded.examples
        self.kept, self.tokens = examples.eval_rows, int(examples.evaluation.tokens.sum())
        results = []
        if self._request.base and self._origin.known:
            results.append(self._measure(tuned, "base"))
        if self._origin.known:
            tuned.take_up(self._origin.folder)
        results.insert(0, self._measure(tuned, "tuned"))
        if self._request.base and not self._origin.known:
            del tuned
            bare = Examination(
                folder, base_profile(self._origin, self._profile), self._request.device, self._rows, self._tick
            )  # fmt: skip
            bare.open()
            results.append(self._measure(bare, "base"))
        return results

    def _measure(self, trial: Examination, who: Who) -> Result:
        began = time.monotonic()
        self._batches, self._what = (
            trial.batches,
            f"measuring {'the base' if who == 'base' else 'the run'}",
        )
        metrics = trial.measure()
        if self._profile.method.stage in _TOKEN_STAGES and "eval_perplexity" not in metrics:
            metrics["eval_perplexity"] = _exp(metrics["eval_loss"])
        if self._questions:
            metrics |= self._compare(trial, who)
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        return Result(who=who, metrics=finite, seconds=time.monotonic() - began)

    def _compare(self, trial: Examination, who: Who) -> dict[str, float]:
        """Let the model answer, and compare its answers with the references."""
        loaded, request = trial.loaded, self._request
        made = loaded.encoder.encode([q.question for q in self._questions])
        prompts = [p.ids.tolist() for p in made if isinstance(p, Prompt)]
        name = "the base answers" if who == "base" else "the run answers"
        answers = answer_all(
            trial.model, loaded.tokenizer, prompts, sampling_of(self._profile, request.sampling),
            loaded.encoder.end_ids(), request.batch_size or _ANSWERED_AT_ONCE,
            lambda done: self._line.progress(name, done, len(prompts)),
        )  # fmt: skip
        self.answers[who] = answers
        scorer = rouge.scorer()
        each = [
            rouge.scores(scorer, answer, question.reference)
            for question, answer in zip(self._questions, answers, strict=True)
            if question.reference is not None
        ]
        if len(each) < len(answers) and who == "tuned":
            self.notes.append(
                f"{len(answers) - len(each)} of {len(answers)} rows have no reference"
            )
        return rouge.means(each)

    def _tick(self, batch: int) -> None:
        self._line.progress(self._what, batch, self._batches)


def read_rows(profile: Profile, request: EvaluateRequest) -> tuple[list[AnyRow], str]:
    """The rows to measure on and what they are in words.

    Raises:
        DataError: there are none, or they cannot be used.
    """
    from core.train.data.rows import read_split

    table, stage, seed = profile.data, profile.method.stage, profile.train.data_seed
    if request.data:
        try:
            named = [dataset.name for dataset in find_sets(request.data, table.dataset_dir)]
        except DataSetError as error:
            raise DataError(f"--data: {error}") from None
        rows = list(read_split(_for_files(table), stage, [], named, seed).evaluation)
        what = ", ".join(Path(name).name for name in named)
    else:
        wanted = 1 if table.streaming else None
        split = read_split(table, stage, dataset_files(profile), eval_files(profile), seed, wanted)
        rows, what = list(split.evaluation), "those that training set aside"
        if eval_files(profile):
            what = "the evaluation data of the profile"
    if not rows:
        raise DataError(
            "the run set no rows aside (data.val_size = 0, and no data.eval_dataset); name some with --data FILE"
        )
    return rows[: request.max_samples], what


def sampling_of(profile: Profile, given: Sampling) -> Sampling:
    """How answers are drawn: what is asked for, else what the profile says; the likeliest token each time, unless a
    temperature is given."""
    table = profile.generation
    return Sampling(
        given.max_new_tokens or table.max_new_tokens,
        0.0 if given.temperature is None else given.temperature,
        table.top_p if given.top_p is None else given.top_p,
        table.top_k if given.top_k is None else given.top_k,
        table.repetition_penalty,
        given.seed,
    )


def write_answers(
    file: Path, questions: Sequence[Asked], answers: Mapping[Who, Sequence[str]]
) -> None:
    """Write what was answered, a JSON object a row; the file is there whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    scorer = rouge.scorer()
    try:
        with temporary.open("w", encoding="utf-8") as out:
            for i, asked_ in enumerate(questions):
                line: dict[str, Any] = {
                    "place": asked_.question.place,
                    "prompt": said(asked_.question.turns),
                    "reference": asked_.reference,
                }
                for who, texts in answers.items():
                    line["prediction" if who == "tuned" else "base_prediction"] = texts[i]
                if asked_.reference is not None and "tuned" in answers:
                    line |= rouge.scores(scorer, answers["tuned"][i], asked_.reference)
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def base_profile(origin: Origin, profile: Profile) -> Profile:
    """What measures the base of weights whose training nobody knows."""
    model = profile.model.model_copy(
        update={"model_name_or_path": origin.base, "adapter_name_or_path": None}
    )
    return replace(profile, model=model)


def _measured_as(origin: Origin) -> Profile:
    """The profile to measure with. Weights whose training nobody knows are a model as it is: an adapter merged into
    its base."""
    profile = origin.profile
    if origin.known:
        return profile
    stage = "rm" if origin.kind == "reward model" else "sft"
    method = profile.method.model_copy(update={"finetuning_type": "full", "stage": stage})
    folder = str(origin.folder)
    update: dict[str, Any] = {"model_name_or_path": folder}
    if origin.adapter is not None:
        update = {"adapter_name_or_path": folder}
    return replace(profile, method=method, model=profile.model.model_copy(update=update))


def _for_files(table: DataTable) -> DataTable:
    """[data] for files of another's: all of their rows, in their order."""
    return table.model_copy(
        update={
            "format": "auto",
            "max_samples": None,
            "val_size": 0.0,
            "streaming": False,
            "mix_strategy": "concat",
            "interleave_probs": None,
        }
    )


def _check(origin: Origin, request: EvaluateRequest, generates: bool) -> None:
    """Refuse what cannot be measured, before anything is loaded."""
    if not origin.known and not request.data:
        raise DataError(
            f"nobody knows what {origin.folder} was trained on: name rows to measure on with --data FILE"
        )
    if generates and origin.kind == "reward model":
        raise SettingsError(
            "a reward model gives no answers: leave --generate and --references out"
        )
    if request.output is not None:
        if not generates:
            raise SettingsError("-o writes answers: add --generate or --references")
        file = Path(request.output)
        if file.is_dir() or not file.parent.is_dir():
            raise SettingsError(f"-o {file}: there is no folder {file.parent}, or it is one itself")
    if request.base and not origin.base:
        raise ModelError(
            f"nothing says which model {origin.folder} was tuned from; name it with --base-model"
        )


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _import_libraries() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
