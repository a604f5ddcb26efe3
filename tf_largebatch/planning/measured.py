"""How long an update takes on machines like one that was measured (`plan --measure`).

    alone    = accumulation x an update of one process, between the measured micro-batches
    together = accumulation x an update of as many processes at once, each on its own
    joined   = an update of as many that sum their gradients
    waiting  = joined - an update together - all-reduce, none where that is below 0
    update   = max(alone, together) + all-reduce + waiting

The engine sends gradients after the backward pass, so nothing of an all-reduce is hidden. The
optimizer's part is in every micro-step as it was measured: with accumulation, an upper bound.
"""

from tf_largebatch.planning.step_time import Network, StepTime
from tf_largebatch.records.checks import check_count
from tf_largebatch.records.machine_speed import MachineSpeed


def update_time(
    speed: MachineSpeed,
    devices: int,
    micro_batch: int,
    accumulation: int = 1,
    *,
    network: Network | None = None,
) -> StepTime:
    """The time of an update, by part; what processes that share a machine lose is `overhead`.

    Args:
        speed: what was measured.
        devices: machines like it with `network`; without, processes of that machine. >= 1.
        micro_batch: images of a device at a time, >= 1.
        accumulation: micro-steps of an update, >= 1.
        network: between the machines.

    ValueError: processes of one machine, so many of which were not measured.
    """
    check_count("devices", devices, 1)
    check_count("accumulation", accumulation, 1)
    alone, sent = accumulation * speed.step_seconds(micro_batch), 4.0 * speed.parameters
    if devices == 1:
        return StepTime(alone, 0.0, 0.0, 0.0)
    if network is not None:
        whole = network.all_reduce_seconds(sent, devices)
        return StepTime(alone, 0.0, whole, whole)
    together = accumulation * speed.step_seconds(micro_batch, devices)
    whole = speed.all_reduce_seconds(sent, devices)
    overhead = max(together - alone, 0.0) + speed.waiting_seconds(micro_batch, devices)
    return StepTime(alone, overhead, whole, whole)
