"""Whether a large batch ends in a sharp minimum: Keskar et al. 2016; Li et al. 2018 doubt it.

Keskar's F1 on MNIST in full: 784-512x5-10 with batch norm, Adam 1e-3, 20 epochs, 256 images against
6,000; without and with decay.
"""

import functools

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies import sharp_minima_page
from tf_largebatch.studies.sharp_minima_plan import DESIGN, plan
from tf_largebatch.studies.sharp_minima_runs import run
from tf_largebatch.studies.study import Claim, Study

KESKAR = "Keskar et al. 2016, arXiv:1609.04836"
LI = "Li et al. 2018, arXiv:1712.09913"
CLAIMS = (
    Claim(
        id="C11a",
        text="A large batch has more test error than a small one in as many epochs.",
        paper=KESKAR,
        published="F1: 98.03 +- 0.07 % at 256, 97.81 +- 0.07 % at 6,000: 0.22 points "
        "(quoted from memory)",
        rule=Rule("more", smallest=0.1),
        contrast="test error at 6,000 - at 256, without decay",
    ),
    Claim(
        id="C11b",
        text="A large batch ends in a minimum that is sharper by an order of magnitude or more.",
        paper=KESKAR,
        published="F1: 1.23 against 205 at epsilon 1e-3, 0.61 against 42.9 at 5e-4: 2.2 and 1.8 "
        "decades (quoted from memory); one to two orders of magnitude (read: digest of the paper)",
        rule=Rule("more", smallest=1.0, unit="decades"),
        contrast="log10 of sharpness at 6,000 - at 256, without decay",
    ),
    Claim(
        id="C12a",
        text="On the line between a small and a large batch's solution the large one looks sharper "
        "without decay, the small one with it.",
        paper=LI,
        published="a figure: the picture flips with decay 5e-4 (quoted from memory)",
        rule=Rule("more", smallest=0.1, unit="of the rise"),
        contrast="(rise at the end that should look sharper - rise at the other) / (sum of both)",
    ),
    Claim(
        id="C12b",
        text="Along filter-normalised directions the large batch is the sharper, with decay and "
        "without.",
        paper=LI,
        published="a figure: normalised, sharpness goes with the test error at both "
        "(quoted from memory)",
        rule=Rule("more", smallest=0.1, unit="of the rise"),
        contrast="(rise at 6,000 - rise at 256) / (sum of both)",
    ),
)
METHOD = (
    "MNIST, all 60,000 training images over 255, no augmentation; 784-512x5-10, batch norm (moving "
    "statistics by 0.9, epsilon 1e-5) before each ReLU; Keras's Adam at 1e-3, the paper's own "
    "setting at both batches, so that nothing is tuned; 20 epochs.",
    "Decay 5e-4 is in the gradient of the kernels; losses below are without its penalty.",
    "Sharpness: Metric 2.1 of Keskar et al. in the full space, 20,000 training images, 10 "
    "iterations of L-BFGS-B from a random point of the box, batch norm as in inference.",
    "C12a: training loss (10,000 images) on the line of weights and statistics, 0 the small "
    "batch's, 1 the large one's, 41 points; the rise at an end is the mean over the points within "
    "0.25 of it, less the loss there (a point where a variance is negative is left out).",
    "C12b: mean rise over 21 points from -1 to 1 on two random filter-normalised lines.",
)
STUDY = Study(
    name="sharp_minima",
    title="Sharp minima: Keskar's F1 on MNIST in full, 256 against 6,000 images an update",
    claims=CLAIMS,
    method=METHOD,
    data=("mnist",),
    design=DESIGN,
    quick_seeds=1,
    plan=plan,
    run=run,
    conclude=functools.partial(sharp_minima_page.conclude, {claim.id: claim for claim in CLAIMS}),
)
