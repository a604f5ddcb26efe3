"""The script or manifest of a training for a machine: `tf-largebatch job goyal_8k --on slurm`.

    tf-largebatch job goyal_8k --on slurm --workers 32 --gpus 8 > goyal_8k.sbatch
    tf-largebatch job mlperf --row sony-v0.6-46080 --on kubernetes --workers 8 | kubectl apply -f -

Workers and GPUs must split the batch as the recipe allows, which is checked first: what is printed
starts.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

from tf_largebatch.planning import job_texts
from tf_largebatch.planning.job_texts import Job
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.console import Parser, choose, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Recipe

GPUS_PER_WORKER = 8
AUTO = "auto"  # the largest micro-batch that fits
_MACHINES = (job_texts.local, job_texts.slurm, job_texts.kubernetes, job_texts.kubeflow)
WRITERS = {writer.__name__: writer for writer in (*_MACHINES, job_texts.tpu)}


# Of a recipe's name: the row that runs without --row, and all rows of a family.
Find = Callable[[str], tuple[Recipe, Mapping[str, Recipe]]]


def main(find: Find, argv: Sequence[str] | None = None) -> None:
    """Prints the text and exits: 0 done, 2 wrong input."""
    run_command(_parser(), lambda arguments: print(write(find, arguments), end=""), argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m tf_largebatch job",
        description="Prints the script or manifest that runs a recipe as published on a machine.",
        epilog="example: %(prog)s goyal_8k --on slurm --workers 32 --gpus 8",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="of the recipe, as `list` shows it")
    add("--row", metavar="ROW", help="of a family of recipes (default: its first)")
    add("--on", required=True, metavar="WHERE", help=f"one of {', '.join(WRITERS)}")
    count, auto = number(int, 1), number(int, 1, word=AUTO)
    text = "processes, one a node; a TPU has none (default: 1)"
    add("--workers", type=count, metavar="N", help=text)
    text = f"of each worker (default: {GPUS_PER_WORKER}; on local all there are)"
    add("--gpus", type=count, metavar="G", help=text)
    text = "the recipe's; on local auto, the largest that fits"
    text = f"images per GPU per forward pass (default: {text})"
    add("--micro-batch", type=auto, metavar="N", help=text)
    text = "$DATA of the script, /data of the manifest"
    add("--data", metavar="DIR", help=f"folder of ImageNet TFRecord shards (default: {text})")
    text = "$RUN_DIR of the script, /runs/NAME of the manifest"
    add("--run-dir", metavar="DIR", help=f"that all workers share (default: {text})")
    text = "of the containers on kubernetes and kubeflow, with tf_largebatch in it"
    add("--image", default="YOUR_IMAGE", help=f"{text} (default: %(default)s)")
    return parser


def write(find: Find, arguments: argparse.Namespace) -> str:
    """Returns the text that the arguments ask for."""
    on = choose(arguments.on, WRITERS, "--on")
    recipe = find_row(find, arguments.name, arguments.row)
    recipe.check_trains()
    if on == "tpu" and (arguments.workers or arguments.gpus):
        flag = "--workers" if arguments.workers else "--gpus"
        raise InputError(
            "a TPU has neither --workers nor --gpus: one process drives all of it. Received: "
            f"--on tpu {flag} {arguments.workers or arguments.gpus}. Leave them out"
        )
    workers = arguments.workers or 1
    gpus = arguments.gpus or (None if on in ("local", "tpu") else GPUS_PER_WORKER)
    micro_batch = arguments.micro_batch or (AUTO if on == "local" else None)
    update = None
    if gpus is not None:
        fixed = None if micro_batch == AUTO else arguments.micro_batch
        plan = check_split(recipe, workers, gpus, fixed)
        update = str(plan)
        if micro_batch == AUTO:
            whole = f"{plan.global_batch} = {plan.replicas} replicas x {plan.replica_batch}"
            update = f"{whole}, in micro-batches that fit"
    job = Job(
        recipe=recipe,
        update=update,
        workers=workers,
        gpus=gpus,
        micro_batch=micro_batch,
        data=arguments.data,
        run_dir=arguments.run_dir,
        image=arguments.image,
    )
    return WRITERS[on](job)


def find_row(find: Find, name: str, row: str | None) -> Recipe:
    """Returns the recipe of a name, or a row of it; InputError where there is none."""
    recipe, rows = find(name)
    if row is None:
        return recipe
    if not rows:
        given = f"--row {row} for {name}, which has one row alone"
        raise InputError(f"--row is for a family of recipes. Received: {given}. Leave it out")
    return rows[choose(row, rows, "--row")]


def check_split(
    recipe: Recipe, workers: int, gpus: int, micro_batch: int | None = None
) -> BatchPlan:
    """Returns how an update is spread over all GPUs, `gpus` of each worker.

    Raises:
        InputError: the batch or the batch-norm batch does not divide; names the nearest that do.
    """
    all_gpus = workers * gpus
    try:
        return recipe.batch_plan(replicas=all_gpus, micro_batch=micro_batch)
    except ValueError as error:
        reason = str(error).rstrip(".")
    divisors = [n for n in range(1, recipe.global_batch + 1) if recipe.global_batch % n == 0]
    fits = [n for n in divisors if _splits(recipe, n, micro_batch)]
    could = [f"--workers {n // gpus}" for n in _around(fits, all_gpus, gpus)]
    could += [f"--gpus {n // workers}" for n in _around(fits, all_gpus, workers)]
    if not could:  # with neither number kept
        could = [f"{n} GPUs in all" for n in sorted(fits, key=lambda n: abs(n - all_gpus))[:2]]
    remedy = f"Nearest that do: {', '.join(could)}"
    given = f"{workers} x {gpus} = {all_gpus} GPUs ({reason})"
    rule = f"--workers x --gpus must split the batch of {recipe.label}"
    raise InputError(f"{rule}. Received: {given}. {remedy}")


def _splits(recipe: Recipe, gpus: int, micro_batch: int | None) -> bool:
    try:
        recipe.phases(replicas=gpus, micro_batch=micro_batch)
    except ValueError:
        return False
    return True


def _around(fits: list[int], wanted: int, factor: int) -> list[int]:
    """The largest below `wanted` and the smallest above it of the multiples of a factor."""
    multiples = [n for n in fits if n % factor == 0]
    return [n for n in multiples if n < wanted][-1:] + [n for n in multiples if n > wanted][:1]
