"""Proximal policy optimisation: the policy answers, a reward model scores, and the policy learns from that.

How a run is counted. An update is one optimizer step, as in every stage. A *round* draws answers to the next
`ppo_buffer_size` effective batches of prompts, and `ppo_epochs` passes over them are its updates, so that a round is
`ppo_buffer_size` × `ppo_epochs` updates; `num_train_epochs` epochs go over each prompt as many times, and over its
answers `ppo_epochs` times as often. `max_steps`, budgets and warm-up count updates. All trials answer the same prompts
in the same order, whatever their batch (`core.train.ppo.rounds`).

How it goes on. A checkpoint holds the answers of its round, so that a run may pause between any two updates; what a
round draws depends on the seed, the round's number and how many answers are drawn at once (per_device_eval_batch_size).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.params import AlignmentTable
from core.profile import Profile, model_path
from core.train.data.chat import ChatEncoder
from core.train.data.examples import Prompt
from core.train.data.stored import group_sizes
from core.train.distributed.ranks import Ranks
from core.train.errors import ModelError
from core.train.log import say
from core.train.memory.rehearsal import longest_rows
from core.train.model.build import (
    learnt_positions,
    load_tokenizer,
    load_unprepared,
    offload_to_host,
    prepare,
)
from core.train.model.source import Source
from core.train.ppo.actors import Actors, kl_of
from core.train.ppo.kl import adapted
from core.train.ppo.losses import policy_loss, value_loss
from core.train.ppo.policy import Turns, causal_of, without_dropout
from core.train.ppo.rollout import (
    Judged,
    ScoreScale,
    batch_of,
    judge,
    kept,
    pad_left,
    scale_kept,
    taken_up,
)
from core.train.ppo.rounds import Rounds
from core.train.ppo.scoring import Scorer, find_reward_model, load_scorer, reads_otherwise
from core.train.ppo.values import NAME, attach
from core.train.precision import Device, Numbers
from core.train.signals import Interrupted
from core.train.stages.base import EpochSampler, StageTrainer
from core.train.stages.reference import AdaptersOff, compute_alike, load_reference, twin_of
from core.train.stages.stage import UsualParts

_STATE_FILE = "ppo.pt"
"""In a checkpoint: the answers of its round, the value head, the weight of the KL penalty, the scale of scores."""
_EVALUATION = 0x5EED
"""Keeps what an evaluation draws apart from what rounds draw."""


class PpoStage(UsualParts):
    """What `ppo` does its own way. The reward model and the reference are loaded with the model."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._multiple = 1
        self._pad = 0
        self._scorer: Scorer | None = None
        self._reference: Any = None

    def load_model(
        self, profile: Profile, source: Source, numbers: Numbers, device: Device, folder: Path
    ) -> Any:
        """The policy, its own dropout off: what answers are drawn with and what learns from them must be the same.

        Raises:
            ModelError: besides, the reward model or the reference is not there, or does not belong to the policy.
        """
        tokenizer = load_tokenizer(profile, source)
        self._pad = (
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        found = find_reward_model(
            str(profile.alignment.reward_model),
            model_path(profile),
            tokenizer,
            profile.model,
            self._pad,
        )
        model = load_unprepared(profile, source, numbers, device)
        twin = twin_of(profile, model)
        model = without_dropout(prepare(model, profile, numbers, offload_to_host))
        loaded = load_reference(profile, source, numbers, device, folder, model, twin)
        compute_alike(loaded or AdaptersOff(model), model)
        if loaded is not None:
            self._reference = without_dropout(loaded.model)
        self._scorer = load_scorer(found, profile.model, numbers.frozen, device, model)
        attach(causal_of(model))
        return model

    def collator(self, pad_id: int, multiple: int) -> Any:
        """As of Stage."""
        self._multiple = multiple
        return PromptCollator(pad_id)

    def trainer(self, tokenizer: Any, shared: Mapping[str, Any]) -> Any:
        """As of Stage."""
        profile, model = self._profile, shared["model"]
        rows = [shared["train_dataset"], shared["eval_dataset"]]
        self._check_room(model, max(part.longest for part in rows if part is not None))
        encoder = ChatEncoder.of(tokenizer, profile.model.template, profile.data)
        assert self._scorer is not None, "the model is loaded first"
        if reads_otherwise(self._scorer.template, encoder.jinja, tokenizer):
            say(
                f"the reward model {profile.alignment.reward_model} was trained with another chat template than "
                f"{model_path(profile)} answers in: it may misjudge answers; set model.template to the same one"
            )
        actors = Actors(
            model,
            getattr(causal_of(model), NAME),
            self._reference,
            self._scorer,
            profile.generation,
            encoder.end_ids(),
            self._pad,
        )
        return PpoTrainer(actors=actors, table=profile.alignment, multiple=self._multiple, **shared)

    def _check_room(self, model: Any, longest: int) -> None:
        """Check that all models have a position for each token of the longest prompt and of an answer to it."""
        assert self._scorer is not None, "the model is loaded first"
        table, answer = self._profile.alignment, self._profile.generation.max_new_tokens
        readers = {
            f"the model {model_path(self._profile)}": model,
            f"alignment.ref_model: {table.ref_model}": self._reference,
            f"alignment.reward_model: {table.reward_model}": self._scorer.model,
        }
        for name, reader in readers.items():
            size = None if reader is None else learnt_positions(reader)
            if size is not None and longest + answer > size:
                raise ModelError(
                    f"{name} takes at most {size} tokens; prompts have up to {longest}, and answers up to {answer} "
                    "more: lower data.cutoff_len or generation.max_new_tokens"
                )


class PromptCollator:
    """Pads prompts on the left, so that all answers begin in the same column."""

    def __init__(self, pad_id: int) -> None:
        self._pad = pad_id

    def __call__(self, batch: Sequence[Prompt]) -> dict[str, Any]:
        """Tensors input_ids and attention_mask, each rows × tokens (int64)."""
        rows = [torch.from_numpy(prompt.ids.astype(np.int64)) for prompt in batch]
        return {
            "input_ids": pad_left(rows, self._pad),
            "attention_mask": pad_left([torch.ones_like(row) for row in rows], 0),
        }


class RoundSampler(EpochSampler):
    """The rows whose answers an epoch's updates learn from."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__(rounds.rows * rounds.passes, rounds.seed)
        self._rounds = rounds

    def __iter__(self) -> Iterator[int]:
        return self._rounds.order(self._epoch)


class PpoScores:
    """What an evaluation adds up."""

    def __init__(self, kl_coef: float) -> None:
        self._kl_coef = kl_coef
        self.answers = 0
        self._score = self._kl = 0.0

    def add(self, scores: Sequence[float], kls: Sequence[float]) -> None:
        """Take in answers."""
        self.answers += len(scores)
        self._score += sum(scores)
        self._kl += sum(kls)

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added. A collective."""
        sums = ranks.total([float(self.answers), self._score, self._kl])
        self.answers, self._score, self._kl = int(sums[0]), sums[1], sums[2]

    def metrics(self) -> dict[str, float]:
        """eval_reward, the mean score; eval_kl, nats an answer; eval_loss, what the policy is to make small: the KL
        weighted as at the run's beginning, less the reward."""
        reward, kl = self._score / self.answers, self._kl / self.answers
        return {"eval_loss": self._kl_coef * kl - reward, "eval_reward": reward, "eval_kl": kl}


class PpoTrainer(StageTrainer):
    """Serves each update its batches from the answers of a round, which it draws as the round begins."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        actors: Actors,
        table: AlignmentTable,
        multiple: int = 1,
        **arguments: Any,
    ) -> None:
        """`table` is [alignment]. Batches are as wide as a multiple of `multiple` tokens. Other arguments are
        StageTrainer's."""
        super().__init__(**arguments)
        self._actors = actors
        self._table = table
        self._multiple = multiple
        args = self.args
        self._rounds = Rounds(
            len(self.train_dataset),
            args.per_device_train_batch_size * args.gradient_accumulation_steps,
            table.ppo_buffer_size,
            table.ppo_epochs,
            self._order_seed,
            group_sizes(self.train_dataset),
        )
        self._round = -1
        self._answers: dict[int, Judged] = {}
        """By row, of the round."""
        self._outcome: dict[str, float] = {}
        """What came of the round: its mean score and KL."""
        self._kl_coef = table.ppo_kl_coef
        self._scale = ScoreScale()

    # Rounds ---------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """Batches of row numbers: what was answered there is found when they are due."""
        loader = torch.utils.data.DataLoader(
            range(self._rounds.rows),
            batch_size=self.args.per_device_train_batch_size,
            sampler=RoundSampler(self._rounds),
            collate_fn=list,
        )
        # It tells the sampler which epoch begins.
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of an update, and the tokens of all their answers."""
        number = self._rounds.number(self.state.global_step)
        if number != self._round:
            self._begin_round(number)
        picked = islice(epoch_iterator, num_batches)
        batches = [self._batch([self._answers[row] for row in rows]) for rows in picked]
        return batches, torch.tensor(sum(int(b["mask"].sum()) for b in batches), device=device)

    def _begin_round(self, number: int) -> None:
        """Answer the prompts of a round and judge the answers."""
        rows = self._rounds.prompts(number)
        size = self.args.per_device_eval_batch_size
        self._begin_evaluation()
        drawn = []
        with self._drawing(number):
            for start in range(0, len(rows), size):
                if self._requests.outcome == "stopped":
                    # A round may take minutes, and half of one is none.
                    raise Interrupted("stopped")
                asked = [self.train_dataset[row] for row in rows[start : start + size]]
                drawn += self._answer(self.data_collator(asked))
        self._end_evaluation()
        scores, kls = [d.score for d in drawn], kl_of(drawn)
        kl = sum(kls) / len(kls)
        if self._table.ppo_score_norm:
            self._scale.add(scores)
        judged = judge(drawn, self._table, self._kl_coef, self._scale.deviation)
        self._answers = dict(zip(rows, judged, strict=True))
        self._outcome = {"reward": sum(scores) / len(scores), "kl": kl}
        self._kl_coef = adapted(self._kl_coef, kl, self._table.ppo_target, len(drawn))
        self._round = number

    def _answer(self, batch: dict[str, Any]) -> Any:
        batch = self._prepare_inputs(batch)
        with self.accelerator.autocast():
            return self._actors.answer(batch["input_ids"], batch["attention_mask"])

    @contextmanager
    def _drawing(self, *numbers: int) -> Iterator[None]:
        """Draw within as the seed and `numbers` say, without gradients, and leave the random state as it was."""
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        seeds = np.random.SeedSequence([self.args.seed, *numbers])
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            yield

    def _batch(self, answers: Sequence[Judged]) -> dict[str, Any]:
        batch = batch_of(answers, self._actors.pad, self._multiple)
        turns = Turns(batch["prompts"], batch["prompt_mask"], batch["answers"], batch["mask"])
        # What the Trainer counts and describes batches by.
        return batch | {"input_ids": turns.ids, "attention_mask": turns.attention_mask}

    def widest_batch(self) -> Any:
        """The longest prompts, with answers as long as they may be."""
        longest: Any = longest_rows(self.train_dataset, self.args.train_batch_size)
        said = torch.full((self._actors.sampling.max_new_tokens,), self._actors.pad)
        none = torch.zeros(len(said))
        prompts = [torch.from_numpy(prompt.ids.astype(np.int64)) for prompt in longest]
        return self._batch([Judged(ids, said, none, none, none, none) for ids in prompts])

    # An update ------------------------------------------------------------------------------------------------------

    def learnt_in(self, inputs: Any) -> Any:
        """Tokens of answers."""
        return inputs["mask"].sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The policy's and the value head's loss, over the tokens of the update's answers."""
        with self.accelerator.autocast():
            loss = self._loss(inputs, num_items_in_batch)
        self._memory.enter("backward")
        return loss

    def _loss(self, inputs: Any, tokens: Any) -> Any:
        table = self._table
        turns = Turns(*(inputs[n] for n in ("prompts", "prompt_mask", "answers", "mask")))
        mask = inputs["mask"].float()
        found, values = self._actors.read(turns)
        policy, clipped = policy_loss(
            found.logprobs, inputs["logprobs"], inputs["advantages"], mask, table.ppo_clip
        )
        value = value_loss(values, inputs["values"], inputs["returns"], mask, table.ppo_clip)
        self._note(mask, found.entropy, clipped, value)
        return (policy + table.ppo_value_coef * value) / tokens

    def _note(self, mask: Any, entropy: Any, clipped: Any, value: Any) -> None:
        """Measure, as means over tokens."""
        own = mask.bool()
        self.measures.add("entropy", entropy[own])
        spread = torch.ones_like(entropy[own]) / mask.sum()
        self.measures.add("clip_fraction", spread * clipped)
        self.measures.add("value_loss", spread * value)

    def stage_logs(self) -> dict[str, float]:
        """The measures of the updates, and what came of the last round."""
        return self._outcome | super().stage_logs()

    # Evaluation -----------------------------------------------------------------------------------------------------

    def new_scores(self) -> Any:
        return PpoScores(self._table.ppo_kl_coef)

    def score(self, scores: Any, batch: Any) -> None:
        """Draw answers, always with the same random numbers, and add up what they earn."""
        with self._drawing(_EVALUATION, scores.answers):
            drawn = self._answer(batch)
        scores.add([d.score for d in drawn], kl_of(drawn))

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = {
            "round": self._round,
            "answers": kept(self._answers),
            "outcome": self._outcome,
            "kl_coef": self._kl_coef,
            "scale": scale_kept(self._scale),
            "head": self._actors.head.state_dict(),
        }
        torch.save(state, Path(output_dir, _STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = torch.load(Path(checkpoint, _STATE_FILE), map_location="cpu", weights_only=True)
        self._round = state["round"]
        self._answers = taken_up(state["answers"])
        self._outcome = state["outcome"]
        self._kl_coef = state["kl_coef"]
        self._scale = ScoreScale(**state["scale"])
        self._actors.head.load_state_dict(state["head"])
