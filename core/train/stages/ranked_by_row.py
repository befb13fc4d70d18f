"""Trainers of stages rm, dpo and kto beside others (`ranked`); their losses are means over the rows of all ranks."""

from core.train.stages.dpo import DpoTrainer
from core.train.stages.kto import KtoTrainer
from core.train.stages.ranked import RankedTrainer
from core.train.stages.reward import RewardTrainer


class RankedRewardTrainer(RankedTrainer, RewardTrainer):
    """Stage rm beside others."""


class RankedDpoTrainer(RankedTrainer, DpoTrainer):
    """Stage dpo beside others."""


class RankedKtoTrainer(RankedTrainer, KtoTrainer):
    """Stage kto beside others."""
