"""Updates to a target for SGD, LARS, LAMB, Muon and K-FAC: whose batch may grow furthest?

The network, data and target of `critical_batch`, at four batches. Each optimizer has a search of
the same size of its own at each batch, as Shallue et al. 2018, arXiv:1811.03600, compare batches,
and Zhang et al. 2019, arXiv:1907.04164, optimizers.
"""

from typing import Any

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies.beyond_sgd_plan import DESIGN, plan
from tf_largebatch.studies.study import Claim, Conclusion, Results, Scale, Study

ZHANG = "Zhang et al. 2019, arXiv:1907.04164"
CLAIMS = (
    Claim(
        id="C19a",
        text="Natural gradients (K-FAC) have a much larger critical batch than momentum SGD.",
        paper=ZHANG,
        published='"much larger critical batch sizes than stochastic gradient descent with '
        'momentum" [paper: abstract]; several times larger [recall: figures]',
        rule=Rule("more", smallest=1.0, unit="doublings"),
        contrast="log2(critical batch of K-FAC / of Nesterov SGD)",
    ),
    Claim(
        id="C19b",
        text="Adam's preconditioning, here in LAMB, has a much larger critical batch than momentum "
        "SGD.",
        paper=ZHANG,
        published='of Adam and K-FAC: "much larger critical batch sizes than stochastic gradient '
        'descent with momentum" [paper: abstract]',
        rule=Rule("more", smallest=1.0, unit="doublings"),
        contrast="log2(critical batch of LAMB / of Nesterov SGD)",
    ),
    Claim(
        id="C20",
        text="At a very large batch K-FAC needs half the updates of momentum SGD or fewer.",
        paper="Osawa et al. 2019, arXiv:1811.12019",
        published="ResNet-50 at 131,072 images: 75 % in 978 updates [paper: abstract]; Nesterov "
        "momentum at 32,768: 75.9 % in 64 epochs, 2,512 updates [derived, from arXiv:2102.06356]",
        rule=Rule("more", smallest=1.0, unit="halvings of the updates"),
        contrast="log2(updates of Nesterov SGD / of K-FAC) at 8,192",
    ),
    Claim(
        id="C21",
        text="Beyond the critical batch Muon keeps more of its data efficiency than Adam, here in "
        "LAMB.",
        paper="Essential AI 2025, arXiv:2505.02222",
        published='"more effective than AdamW in retaining data efficiency at large batch sizes, '
        'far beyond the so-called critical batch size" [paper: abstract]',
        rule=Rule("more", smallest=0.5, unit="doublings of the examples"),
        contrast="log2(examples to the target at 8,192 / at 512), LAMB - Muon",
    ),
    Claim(
        id="C22",
        text="Layer-wise rates (LARS) let the batch grow further than momentum SGD does.",
        paper="You et al. 2017, arXiv:1708.03888",
        published="not in updates: AlexNet from 512 to 4,096 images loses 5.7 points with SGD, 0.4 "
        "with LARS (read: slides 003)",
        rule=Rule("more", smallest=0.5, unit="doublings"),
        contrast="log2(critical batch of LARS / of Nesterov SGD)",
    ),
)
METHOD = (
    "A network 784-128-10 with ReLU on pixels of Fashion-MNIST in 0 to 1, plain `compile` and "
    "`fit`, constant rates, no decay. Target: 13 % error on 5,000 held-out training examples, "
    "looked at after each of the first 25 updates, then after 4 % more each time; where the first "
    "1,000 of them are 3 points above it, at those only. The test set is not used.",
    "Nesterov `MomentumSGD`, `LARS` (trust 0.1, biases at the raw rate), `LAMB`, `Muon` (both "
    "kernels; biases by Adam at a tenth of the rate) and `KFAC` (momentum 0.9; statistics of a "
    "batch every 512 examples or at every update, whose share is batch / (batch + 512)). A "
    "seed has the same first weights and the same batches for all.",
    "Search: 16 quasi-random points at every batch, of the rate over a factor of 100 and of one "
    "number more: 1 - momentum 0.03 to 1 (LAMB: beta_1), of K-FAC the damping over a factor of "
    "100; on a seed of its own. A trial ends where the fastest of the waves before it (4, 4, 8 "
    "points) has reached the target: it cannot be faster. The two best points run again on each of "
    "the final seeds, and the fewer updates of the two are the seed's.",
    "Budget of a trial: 3 epochs or 300 updates, the larger of the two. Where no trial of a search "
    "or of a seed reaches the target in it, they run again with 8 epochs.",
    "The law (S/S_min - 1)(E/E_min - 1) = 1 is fitted to each seed's updates; critical batches "
    "count as at least a quarter of the smallest batch and at most four times the largest, beyond "
    "which the law cannot be told from a flat line and from perfect scaling.",
)


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one trial."""
    from tf_largebatch.studies.target_optimizers import contender
    from tf_largebatch.studies.target_training import training

    split = sets.load(DESIGN["data"], settings["stage"])
    train, held_out = (
        (images.reshape(len(images), -1), labels)
        for images, labels in (split.train, split.held_out)
    )
    one = training(
        train[0].shape[1],
        tuple(DESIGN["hidden"]),
        settings["batch"],
        contender(settings["optimizer"]),
    )
    limits = {key: settings[key] for key in ("seed", "updates", "target_pct")}
    return one.to_target(train, held_out, **settings["point"], **limits)


def conclude(results: Results, scale: Scale) -> Conclusion:
    """What the trials say."""
    from tf_largebatch.studies import beyond_sgd_page

    return beyond_sgd_page.conclude(results, scale, {claim.id: claim for claim in CLAIMS})


STUDY = Study(
    name="beyond_sgd",
    title="Updates to a target with SGD, LARS, LAMB, Muon and K-FAC: the critical batch of each",
    claims=CLAIMS,
    method=METHOD,
    data=("fashion_mnist",),
    design=DESIGN,
    plan=plan,
    run=run,
    conclude=conclude,
    quick_seeds=1,
    backends=("jax",),
)
