"""The gradient noise scale: how large a batch still pays.

McCandlish et al. 2018, arXiv:1812.06162. With G the gradient of the expected loss and Sigma the
covariance of one example's gradient, a batch of B examples has E|G_B|^2 = |G|^2 + tr(Sigma) / B and

    B_simple = tr(Sigma) / |G|^2                                                       (Eq. 2.9)

A batch far below it learns from each example nearly as much as a single one would; one far above
it learns nearly as much per update as the whole data set would.

Both expectations are estimated without bias from |G_B|^2 at two sizes (Appendix A.1), and their
ratio as a ratio of averages: the average of ratios is biased, and a single |G|^2 may be negative.
Batches are taken for independent draws. Where they are drawn without replacement from N examples,
tr(Sigma) is that of the sample, and |G|^2 is tr(Sigma) / N below the square of its mean gradient:
an estimate for the population that the N examples came from.
"""

import math
from dataclasses import dataclass

from tf_largebatch.records.checks import check, check_number

DECAY = 0.95  # ours; the paper does not state its own
WARM_ESTIMATES = 20  # ours: one time constant of the default decay


@dataclass(frozen=True)
class NoiseEstimate:
    """Estimates of one update or of an average; neither is bound to be positive."""

    grad_sq: float  # of |G|^2
    trace: float  # of tr(Sigma)

    @property
    def b_simple(self) -> float | None:
        """tr(Sigma) / |G|^2 in examples; None where an estimate is not above zero."""
        usable = self.grad_sq > 0 and self.trace >= 0
        return self.trace / self.grad_sq if usable and math.isfinite(self.trace) else None


def from_two_batches(
    small_sq: float, big_sq: float, *, small_batch: int, big_batch: int
) -> NoiseEstimate:
    """Estimates from the squared gradient norms at two batch sizes (arXiv:1812.06162, A.1).

        |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small)
        tr S  = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big)

    Args:
        small_sq: |G_small|^2, best its mean over all small batches that make up the big one: a
            replica's or a micro-batch's *mean* gradient.
        big_sq: |G_big|^2 of the mean gradient of the big batch.
        small_batch: examples of each small batch, >= 1.
        big_batch: examples of the big batch, more than that.
    """
    check(small_batch >= 1, "small_batch", "at least 1", small_batch)
    rule, fix = f"above {small_batch=}", "Use two or more replicas or micro-batches an update"
    check(big_batch > small_batch, "big_batch", rule, big_batch, fix)
    for name, value in (("small_sq", small_sq), ("big_sq", big_sq)):
        # NaN passes: a running average leaves it out.
        check(not value < 0, name, "at least 0", value)
    grad_sq = (big_batch * big_sq - small_batch * small_sq) / (big_batch - small_batch)
    trace = (small_sq - big_sq) / (1.0 / small_batch - 1.0 / big_batch)
    return NoiseEstimate(grad_sq=grad_sq, trace=trace)


class NoiseScale:
    """Running B_simple: the ratio of exponential averages of tr(Sigma) and |G|^2.

    Both averages have the same weights, so the share that is missing at the start cancels. `decay`
    is that of the averages per estimate, in [0, 1).
    """

    def __init__(self, decay: float = DECAY):
        self._decay = check_number("decay", decay, high=1.0)
        self._grad_sq = self._trace = self._weight = 0.0
        self.count = 0

    def go_on(self, average: NoiseEstimate, count: int) -> None:
        """Takes up `average` of `count` >= 1 estimates, as if all had been added here."""
        self._weight = (1.0 - self._decay**count) / (1.0 - self._decay)
        self._grad_sq = self._weight * average.grad_sq
        self._trace = self._weight * average.trace
        self.count = count

    def add(self, estimate: NoiseEstimate) -> None:
        """Adds one update's estimate; one that is not finite is left out."""
        if not (math.isfinite(estimate.grad_sq) and math.isfinite(estimate.trace)):
            return
        self._grad_sq = self._decay * self._grad_sq + estimate.grad_sq
        self._trace = self._decay * self._trace + estimate.trace
        self._weight = self._decay * self._weight + 1.0
        self.count += 1

    @property
    def average(self) -> NoiseEstimate | None:
        """The averages, or None before the first estimate."""
        if not self.count:
            return None
        return NoiseEstimate(self._grad_sq / self._weight, self._trace / self._weight)

    @property
    def b_simple(self) -> float | None:
        """In examples; None where the averages do not give one."""
        return self.average.b_simple if self.average else None


def advise(
    estimate: NoiseEstimate | None, *, global_batch: int | None = None, updates: int | None = None
) -> str:
    """Says in a sentence what a measured noise scale means for the batch.

    `estimate` is an average over many updates, measured after so many `updates`.
    """
    when = "" if updates is None else f" after {updates:,} updates"
    if estimate is None:
        return f"B_simple was not measured{when}: no finite pair of gradient norms"
    scale = estimate.b_simple
    if scale is None:
        return (
            f"B_simple could not be told{when}: the mean gradient is not above its noise "
            f"(|G|^2 estimated as {estimate.grad_sq:.3g}). Average more updates or examples"
        )
    size = f"{float(f'{scale:.2g}'):,.0f}" if scale >= 10 else f"{scale:.2g}"  # it has no more
    text = f"measured B_simple {size}{when}: batches above about {size} buy little"
    if global_batch is None or scale == 0:
        return text
    return f"{text}; {say_doubling(global_batch, scale)}"


def say_doubling(global_batch: int, critical_batch: float) -> str:
    """Says what twice the batch saves and costs, by the law of the critical batch.

    At a batch B, S_min (1 + B_crit / B) updates and E_min (1 + B / B_crit) examples reach a loss
    (Eq. 2.11; B_simple may stand for B_crit): twice the batch saves the share
    B_crit / (B + B_crit) / 2 of the updates, and costs B / (B + B_crit) more examples.
    """
    more = global_batch / (global_batch + critical_batch)
    return (
        f"doubling the batch of {global_batch:,} saves {50 * (1.0 - more):.0f} % of the updates "
        f"and costs {100 * more:.0f} % more images"
    )
