"""What a study is: claims with their rules, a plan of trials, and what the trials say.

A study module states, before anything runs, its claims, the rule of each verdict and every constant
(`Study.design`), and gives four functions. The runner does the rest: it keeps each trial in a file
of its own, goes on after a kill, shares the trials between processes, and writes the page.

No study module imports a framework, NumPy or matplotlib at its top: `tf-largebatch study` lists
them in a moment. They are imported inside `run` and `conclude`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tf_largebatch.records.checks import check
from tf_largebatch.records.files import fingerprint
from tf_largebatch.review.verdict import CANNOT_TELL, Finding, Rule, combine, decide

TUNE, FINAL = "tune", "final"  # stages of a trial: only a final one may read the test set
Results = Mapping[str, dict]  # name of a finished trial -> its result


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a paper, and what must be measured for it to hold here."""

    id: str  # of the project's list, for example "C9"
    text: str  # a sentence
    paper: str  # for example "Shallue et al. 2018, arXiv:1811.03600"
    published: str  # the published effect, its source and the kind of it, as a line
    rule: Rule
    contrast: str  # the difference that the rule is about, for example "LAMB - SGD"


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        name: the path of its file below `trials/` without suffix, "mnist/b0064-s0-t03".
        settings: plain JSON, everything that decides it; "stage" is "tune" or "final".
    """

    name: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        plain = all(
            p and p[0] != "." and p.replace("-", "").replace("_", "").replace(".", "").isalnum()
            for p in parts
        )
        check(plain, "name", "parts of letters, digits, '-', '_' and '.', joined by '/'", self.name)
        stage = self.settings.get("stage")
        check(stage in (TUNE, FINAL), "settings['stage']", "'tune' or 'final'", stage)


@dataclass(frozen=True)
class Scale:
    """How much of a study is run: its seeds, 0 to seeds - 1; `quick` is for a look, in minutes."""

    seeds: int
    quick: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page; cells are texts, the first row names the columns."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # a sentence below it


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    name: str  # of its file, "steps.png"
    png: bytes
    caption: str


@dataclass(frozen=True)
class Answer:
    """What was found on a claim, or on a part of one, such as one data set.

    Attributes:
        claim: its id.
        effect: what was measured, in words and numbers with the interval.
        finding: the paired differences that the rule was applied to; None where there are too few.
        verdict: by the claim's rule.
        part: which, where a claim has several. All parts must agree for the claim to.
    """

    claim: str
    effect: str
    finding: Finding | None
    verdict: str
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """Everything that the trials say."""

    answers: Sequence[Answer]
    tables: Sequence[Table]
    tuning: Sequence[Table]  # every point of every search, on the page below the fold
    figures: Sequence[Figure]
    notes: Sequence[str] = ()  # what was tried, what differs from the paper, what it would take
    numbers: Mapping[str, Any] = field(default_factory=dict)  # plain JSON for the record


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study.

    Attributes:
        name: of its module.
        title: a line.
        claims: those it tries, in the order of the page.
        method: sentences on the design, for the page: data, network, rows, search, budget.
        data: names that `sets.Sets.load` knows.
        design: plain JSON of every constant; trials of another design are run again.
        plan: (results, scale) -> all trials that are known to be needed, given what is finished.
            Pure, and in the order of their worth: all of seed 0 before seed 1. It is asked again
            after each trial, and grows as tuning ends.
        run: (settings, sets) -> result; trains one trial. Plain JSON, NaN allowed.
        conclude: (results, scale) -> Conclusion; called when something has finished, perhaps not
            everything: a claim that lacks trials is answered with "cannot tell".
        seeds: of the whole study.
        quick_seeds: of `--quick`.
        backends: of Keras on which its trials run.
    """

    name: str
    title: str
    claims: Sequence[Claim]
    method: Sequence[str]
    data: Sequence[str]
    design: Mapping[str, Any]
    plan: Callable[[Results, Scale], Sequence[Trial]]
    run: Callable[[dict[str, Any], Any], dict[str, Any]]
    conclude: Callable[[Results, Scale], Conclusion]
    seeds: int = 5
    quick_seeds: int = 2
    backends: Sequence[Literal["jax", "tensorflow"]] = ("jax", "tensorflow")

    @property
    def version(self) -> str:
        """16 hexadecimal digits of the design."""
        return fingerprint(dict(self.design))

    def claim(self, identity: str) -> Claim:
        """Returns the claim of this id."""
        return next(claim for claim in self.claims if claim.id == identity)

    def verdict(self, answers: Sequence[Answer], identity: str) -> str:
        """The verdict on a claim, over the parts of its answer."""
        return combine(a.verdict for a in answers if a.claim == identity)


def answer(
    claim: Claim, differences: Sequence[float], scale: Scale, *, part: str = "", effect: str = ""
) -> Answer:
    """Applies the claim's rule to one difference a seed.

    Fewer than two finite ones have no interval; a quick look never tells.

    Args:
        claim: whose rule.
        differences: in the rule's unit.
        scale: of the study.
        part: of the claim.
        effect: what the differences are, before the numbers; the contrast by default.
    """
    label = effect or claim.contrast
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        text = f"{label}: too few finished seeds (n = {len(differences)})"
        return Answer(claim.id, text, None, CANNOT_TELL, part)
    finding = decide(differences, claim.rule)
    verdict = CANNOT_TELL if scale.quick else finding.verdict
    return Answer(claim.id, f"{label}: {finding.describe(claim.rule.unit)}", finding, verdict, part)
