"""What Ray Train makes of a training whose node was lost."""

import pytest
from ray.exceptions import RayActorError
from ray.train import FailureConfig
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy
from ray.train.v2._internal.execution.failure_handling.failure_policy import FailureDecision
from ray.train.v2.api.exceptions import WorkerGroupError

from glioflow.runs.train.lost_nodes import LostNodes


def decide(text: str, times: int) -> FailureDecision:
    """Tell Ray Train's policy of workers that died of one thing, several times; return its last decision."""
    policy = DefaultFailurePolicy(FailureConfig(max_failures=2))
    for _ in range(times):
        died = {0: WorkerHealthCheckFailedError("a worker died", failure=RayActorError(error_msg=text))}
        LostNodes().after_exception(None, died)
        decision = policy.make_decision(WorkerGroupError("workers died", died))
    return decision


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("The actor died because its node has died. Node Id: ab", FailureDecision.RETRY),
        ("The actor died unexpectedly before finishing this task.", FailureDecision.RAISE),
    ],
)
def test_a_training_outlives_any_number_of_lost_nodes_and_two_failures_of_its_own(text, decision):
    assert decide(text, times=2) == FailureDecision.RETRY
    assert decide(text, times=3) == decision
