"""Which of a run's evaluations are better: what early stopping, the best checkpoints and some schedules go by."""

from core.logged import usual_metric
from core.profile import Profile
from core.search.metric import Metric, MetricError, find, resolve


def judged_by(profile: Profile) -> Metric:
    """The metric of evaluations that a run is judged by: what its study ranks by, or, where that is not measured on
    validation data, what its stage is usually ranked by."""
    search, stage = profile.search, profile.method.stage
    try:
        metric = resolve(search.rank_by, search.rank_direction, True, stage)
    except MetricError:
        metric = find(search.rank_by)
    return metric if metric.evaluated else find(usual_metric(stage, validated=True))
