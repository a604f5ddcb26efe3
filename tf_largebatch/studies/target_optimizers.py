"""The optimizers of `beyond_sgd`, as `target_training` takes them."""

import functools

from tf_largebatch.optimizers import KFAC, LAMB, LARS, Muon
from tf_largebatch.studies.beyond_sgd_plan import DESIGN
from tf_largebatch.studies.natural_gradient import NaturalGradientNetwork
from tf_largebatch.studies.target_training import NESTEROV, Contender


@functools.cache
def contender(name: str) -> Contender:
    """Returns it by the name that the design has for it; once, so that it is compiled once."""
    fixed = DESIGN["fixed"].get(name, {})
    match name:
        case "sgd":
            return NESTEROV
        case "lars":
            return Contender(lambda batch: LARS(0.1, **fixed))
        case "lamb":
            return Contender(lambda batch: LAMB(0.1, **fixed), "beta_1", compiled_in=True)
        case "muon":
            return Contender(lambda batch: Muon(0.1, **fixed))
        case _:
            return Contender(_kfac, "damping", NaturalGradientNetwork)


def _kfac(batch: int) -> KFAC:
    fixed = DESIGN["fixed"]["kfac"]
    examples = fixed["statistics_examples"]
    return KFAC(
        0.1,
        momentum=fixed["momentum"],
        refresh_updates=max(1, examples // batch),
        statistics_decay=batch / (batch + examples),
    )
