"""Three regimes of updates to a target, the noise scale that predicts them, and LAMB untuned.

At each batch rate and momentum are searched on their own, as in Figure 1 of Shallue et al. 2018,
arXiv:1811.03600; the law of McCandlish et al. 2018, arXiv:1812.06162, is fitted to each seed, and
its critical batch set beside the gradient noise scale. The ladder of LAMB is You et al. 2020,
arXiv:1904.00962, Table 4: one rate, tuned at the smallest batch, and two rules.
"""

from typing import Any

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies.critical_batch_plan import DESIGN, plan
from tf_largebatch.studies.study import Claim, Conclusion, Results, Scale, Study

SHALLUE = "Shallue et al. 2018, arXiv:1811.03600"
MCCANDLISH = "McCandlish et al. 2018, arXiv:1812.06162"
YOU = "You et al. 2020, arXiv:1904.00962"
CLAIMS = (
    Claim(
        id="C9",
        text="Updates to a target fall as 1 / batch, then less and less, then not at all.",
        paper=SHALLUE,
        published="a simple CNN on MNIST scales perfectly to about 2^9 to 2^10 and is flat from "
        "about 2^13 [recall: Figure 1]",
        rule=Rule("equal", smallest=0.3, unit="halvings of the updates a doubling"),
        contrast="halvings of the updates per doubling of the batch, less the regime's own: 1 from "
        "16 to 128, 0 from 2,048 to 8,192",
    ),
    Claim(
        id="C10",
        text="The gradient noise scale predicts the critical batch to an order of magnitude.",
        paper=MCCANDLISH,
        published="MNIST: noise scale 900, critical batch 200, 0.65 decades apart "
        "[paper: digest, Table 1]",
        rule=Rule("equal", smallest=1.0, unit="decades"),
        contrast="log10(noise scale averaged along the run / fitted critical batch)",
    ),
    Claim(
        id="C8a",
        text="LAMB keeps its error over a 64 times larger batch with the rate scaled by the root "
        "and the warmup by the batch, without tuning.",
        paper=YOU,
        published="ResNet-50 loses 0.54 points from 512 to 32,768 [recall: Table 4]",
        rule=Rule("no_worse", smallest=1.0),
        contrast="LAMB's test error at 4,096 - at 64",
    ),
    Claim(
        id="C8b",
        text="SGD, scaled by the same two rules, loses more than LAMB.",
        paper=YOU,
        published="not a number of the paper: it compares tuned solvers at 16,384, momentum 75.2 "
        "against 76.7 % of LAMB [recall: Table 3]",
        rule=Rule("more", smallest=0.5),
        contrast="test error at 4,096, SGD - LAMB, both with root and warmup rules from their own "
        "best rate at 64",
    ),
)
METHOD = (
    "A network 784-128-10 with ReLU on pixels in 0 to 1, plain `compile` and `fit`, Nesterov "
    "`MomentumSGD` at a constant rate. Target: 3 % (MNIST) and 13 % (Fashion-MNIST) error on 5,000 "
    "held-out training examples, looked at after each of the first 25 updates, then after 4 % more "
    "each time; where the first 1,000 of them are 3 points above it, at those only.",
    "Search: the same 24 quasi-random points of rate 0.002 to 1 and 1 - momentum 0.03 to 1 at "
    "every batch, on a seed of its own. A trial ends where the fastest of the waves before it "
    "(4, 4, 16 points) has reached the target: it cannot be faster. The four best points run again "
    "on each of the final seeds, and the fewest updates of the four are the seed's.",
    "Budget of a trial: 5 epochs or 400 updates, the larger of the two.",
    "The law (S/S_min - 1)(E/E_min - 1) = 1 is fitted to each seed's updates over all batches; "
    "intervals are over seeds.",
    "Noise scale: |G|^2 and tr(Sigma) from batches of 512 and 8,192 examples at 20 even places of "
    "each seed's fastest run at 64, 512 and 4,096, averaged each along the run before they are "
    "divided; the seed's noise scale is the geometric mean of the three.",
    "LAMB's ladder on Fashion-MNIST: 10 epochs, linear warmup over epochs in proportion to the "
    "batch, polynomial decay of power 1 to 0; the rate is tuned at 64 over a grid of five on two "
    "seeds. SGD (Nesterov 0.9) has a grid of the same size; its linear rule is shown beside it and "
    "is in no verdict.",
)


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one trial."""
    split = sets.load(settings["data"], settings["stage"])
    if settings["kind"] == "ladder":
        from tf_largebatch.studies.ladder_training import train_rung

        return train_rung(settings, split, DESIGN["ladder"], tuple(DESIGN["hidden"]))
    from tf_largebatch.studies.target_training import training

    train, held_out = (
        (images.reshape(len(images), -1), labels)
        for images, labels in (split.train, split.held_out)
    )
    one = training(train[0].shape[1], tuple(DESIGN["hidden"]), settings["batch"])
    point = {key: settings[key] for key in ("rate", "momentum", "seed", "updates")}
    if settings["kind"] == "noise":
        return one.noise(train, **point)
    return one.to_target(train, held_out, target_pct=settings["target_pct"], **point)


def conclude(results: Results, scale: Scale) -> Conclusion:
    """What the trials say."""
    from tf_largebatch.studies import critical_batch_report

    return critical_batch_report.conclude(results, scale, {claim.id: claim for claim in CLAIMS})


STUDY = Study(
    name="critical_batch",
    title="Updates to a target against the batch, the noise scale, and LAMB untuned",
    claims=CLAIMS,
    method=METHOD,
    data=("mnist", "fashion_mnist"),
    design=DESIGN,
    plan=plan,
    run=run,
    conclude=conclude,
)
