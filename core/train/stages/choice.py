"""Which stage a profile trains: the object that knows what is its own."""

from core.profile import Profile
from core.train.stages.stage import Stage


def stage_of(profile: Profile) -> Stage:
    """The stage of `profile`. What it needs (TRL, say) is imported here and not before."""
    match profile.method.stage:
        case "rm":
            from core.train.stages.reward import RewardStage

            return RewardStage(profile)
        case "dpo":
            from core.train.stages.dpo import DpoStage

            return DpoStage(profile)
        case "kto":
            from core.train.stages.kto import KtoStage

            return KtoStage(profile)
        case "ppo":
            from core.train.stages.ppo import PpoStage

            return PpoStage(profile)
        case "pt" | "sft":
            from core.train.stages.sft import SftStage

            return SftStage(profile)
