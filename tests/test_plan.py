"""Plans under a target, and fixes on a cluster that ends."""

import pytest

import hwsim
from hwsim.errors import InfeasibleError


@pytest.mark.parametrize("top", [1, 3, 10])
def test_every_mesh_is_held_against_the_target(top):
    """The cheapest plans use few devices and are slow: those that are fast enough count, however many are asked for."""
    fastest = hwsim.plan("8b", gpus=64, top=1).best.tokens_per_s
    plan = hwsim.plan("8b", gpus=64, top=top, objective="cost", target_tokens_per_s=0.9 * fastest)
    assert plan.best.tokens_per_s >= 0.9 * fastest
    assert len(plan.plans) <= top


def test_a_cluster_that_ends_is_infeasible_not_a_wrong_flag():
    hardware = hwsim.load_hardware("dgx-h100")
    alone = hardware.model_copy(
        update={"cluster": hardware.cluster.model_copy(update={"tiers": hardware.cluster.tiers[:1]})}
    )
    with pytest.raises(InfeasibleError, match=r"out of memory.*No number of devices within reach fits"):
        hwsim.plan("70b", alone, 8)
    with pytest.raises(InfeasibleError, match=r"missed.*No number of devices within reach does"):
        hwsim.plan("gpt2", alone, 8, target_tokens_per_s=1e12)
