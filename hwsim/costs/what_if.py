"""The same machine with more of one thing."""

from __future__ import annotations

from hwsim.specs.hardware import Hardware


def nudged(hardware: Hardware, factor: float) -> dict[str, Hardware]:
    """The hardware with `factor` times the rate of one resource at a time, by name of the resource."""
    device, cluster = hardware.accelerator, hardware.cluster
    peaks = {name: value * factor for name, value in device.peak.model_dump().items() if value}
    peak = device.model_copy(update={"peak": device.peak.model_copy(update=peaks)})
    memory = device.memory.model_copy(update={"bandwidth": device.memory.bandwidth * factor})
    result = {
        "matrix-unit peak": hardware.model_copy(update={"accelerator": peak}),
        "memory bandwidth": hardware.model_copy(update={"accelerator": device.model_copy(update={"memory": memory})}),
    }
    for i, tier in enumerate(cluster.tiers):
        faster = tier.model_copy(update={"bandwidth": (tier.bandwidth or cluster.node.nic_share) * factor})
        changed = cluster.model_copy(update={"tiers": (*cluster.tiers[:i], faster, *cluster.tiers[i + 1 :])})
        result[f"{tier.name} bandwidth"] = hardware.model_copy(update={"cluster": changed})
    return result
