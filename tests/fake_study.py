"""A study without training: its trials are arithmetic, so that the runner is what is tested."""

import os
import time

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies.study import Claim, Conclusion, Scale, Study, Table, Trial, answer
from tf_largebatch.studies.tuning import search_rates, tuning_table

CLAIM = Claim(
    id="C0",
    text="Twice is more.",
    paper="Nobody 1999",
    published="2 points [derived]",
    rule=Rule("more", smallest=1.0),
    contrast="twice - once",
)
PLACE = {"backend": "none", "device": "a desk", "versions": {"paper": "1"}}
PAUSE = "FAKE_STUDY_PAUSE"  # seconds of a trial


def tuning(row):
    def make(rate, seed):
        settings = {"row": row, "rate": rate, "seed": seed, "stage": "tune"}
        return Trial(f"{row}/r{rate:g}-s{seed}", settings)

    return make


def searches(results):
    return [search_rates(row, (1.0, 2.0, 4.0), results, tuning(row)) for row in ("once", "twice")]


def plan(results, scale):
    found = searches(results)
    trials = [tuning(s.row)(r, n) for s in found for r, _, _ in s.points for n in range(2)]
    if not any(s.missing for s in found):
        for seed in range(scale.seeds):
            for s in found:
                settings = {"row": s.row, "rate": s.best, "seed": seed, "stage": "final"}
                trials.append(Trial(f"final/{s.row}-s{seed}", settings))
    return trials


def run(settings, sets):
    time.sleep(float(os.environ.get(PAUSE, 0)))
    if settings["stage"] == "tune":
        best = {"once": 8.0, "twice": 2.0}[settings["row"]]  # one lies beyond the grid
        return {"held_out_error_pct": abs(settings["rate"] - best) + 0.1 * settings["seed"]}
    factor = {"once": 1, "twice": 2}[settings["row"]]
    return {"error": factor * (2.0 + 0.1 * settings["seed"])}


def conclude(results, scale):
    errors = [
        [results.get(f"final/{row}-s{seed}", {}).get("error") for row in ("once", "twice")]
        for seed in range(scale.seeds)
    ]
    pairs = [b - a for a, b in errors if a is not None and b is not None]
    table = Table("Errors", ("once", "twice"), [[str(a), str(b)] for a, b in errors])
    return Conclusion(
        answers=[answer(CLAIM, pairs, scale)],
        tables=[table],
        tuning=[tuning_table(searches(results), scale)],
        figures=[],
    )


STUDY = Study(
    name="fake",
    title="A study of arithmetic",
    claims=[CLAIM],
    method=["Numbers."],
    data=(),
    design={"constant": 1},
    plan=plan,
    run=run,
    conclude=conclude,
)
SCALE = Scale(5)
