"""ResNet-50 on ImageNet as submitted to MLPerf Training v0.6, v0.7 and v1.0: 832 to 65,536 images.

Training stops at the first evaluation with 75.9 % top-1 accuracy, the benchmark's target, as every
row did; what counts is what it took: epochs, updates, time. Rows by submitter, round and batch:

    python -m tf_largebatch.recipes.mlperf --row google-v0.7-65536-jax --data DIR
"""

import math
from dataclasses import replace

from tf_largebatch.recipes import you_alexnet
from tf_largebatch.records import published
from tf_largebatch.records.recipe import (
    Contrast,
    Expected,
    ImageNetSpec,
    LARSSpec,
    LossSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    Row,
    SGDSpec,
    StopSpec,
)
from tf_largebatch.training.command import main

DATA = ImageNetSpec(
    image_size=224,  # [code: v0.7 Google JAX mlperf_input_pipeline.py]
    min_area=0.05,  # [code: v0.7 Google JAX; NVIDIA run_and_time.sh]
    max_area=1.0,  # [code: the same]
    min_aspect=0.75,  # [code: the same]
    max_aspect=1.33,  # [code: v0.7 Google JAX; 4/3 in NVIDIA's]
    interpolation="bicubic",  # [code: v0.7 Google JAX]
    eval_crop="square",  # [code: v0.7 Google JAX] the central 224/256 of the shorter side
    eval_short_side=256,  # [code: v0.7 Google JAX]
)

# Every row's, by the rules of the benchmark.
COMMON = Recipe(
    name="mlperf",
    title="MLPerf Training: ResNet-50 to 75.9 %",
    paper="MLPerf Training",
    data=DATA,
    model=ModelSpec(
        architecture="resnet50",  # [code: RCP files] v1.5
        last_gamma=0.0,  # [code: v0.7 Google JAX]
        bn_decay=0.9,  # [code: the rules, in Fujitsu's parameters]
        bn_epsilon=1e-5,  # [code: the rules, in Fujitsu's parameters]
        head_std=0.01,  # [code: v0.7 Google JAX]
    ),
    global_batch=65536,  # [code: result log] replaced in each row
    epochs=92,  # [code: result log] replaced in each row
    reference_rate=23.080977304670448,  # [code: result log] replaced in each row
    reference_batch=65536,  # [code: result log] replaced in each row
    scaling="none",  # [code: result log] a rate for each batch
    optimizer=LARSSpec(
        momentum=0.9,  # [code: result log] replaced in each row
        weight_decay=1e-4,  # [code: result log] replaced in each row
        trust_coefficient=0.001,  # [code: the rules, in Fujitsu's parameters]
        epsilon=0.0,  # [code: v0.7 Google JAX; v0.7 NVIDIA fit.py]
        exclude_rank_below=2,  # [code: v0.7 Google JAX; v0.7 NVIDIA fit.py]
    ),
    schedule=PolynomialSpec(
        warmup_epochs=33,  # [code: result log] replaced in each row
        warmup_start_rate=0.0,  # [code: v0.7 Google JAX]
        power=2.0,  # [code: the rules, in Fujitsu's parameters]
        end_rate=1e-4,  # [code: the rules, in Fujitsu's parameters]
        extra_updates=1,  # [code: v0.7 Google JAX train.py] T - W + 1
    ),
    loss=LossSpec(label_smoothing=0.1),  # [code: the rules: 0 or 0.1; v0.7 Google JAX]
    precision="bfloat16",  # [code: v0.7 Google JAX]
    stop=StopSpec(
        target_pct=75.9,  # [code: the rules; eval_target of the result logs]
        first_epoch=4,  # [code: result log] replaced in rows that begin elsewhere
        every_epochs=4,  # [code: result log] in all of them
    ),
)
NOTE = (
    "every epoch is evaluated here, and training stops only where the logs evaluate: every 4; time "
    "is that of the updates, the logs' own has evaluation in it"
)
GOOGLE_NOTE = (
    "updates and warmup are the log's; Google counts epochs in rounded updates (at 32,768 157 for "
    "4 epochs, where 156.4 are exact), here they are exact, and evaluations as much earlier"
)
FIRST_DATA = replace(
    DATA,
    min_area=0.08,  # [code: v0.6 Google resnet_preprocessing.py]
    min_aspect=3 / 4,  # [code: v0.6 Google resnet_preprocessing.py]
    max_aspect=4 / 3,  # [code: v0.6 Google resnet_preprocessing.py]
)
NVIDIA_NOTE = "NVIDIA's code decays the classifier's bias too; here no bias is decayed"
TABLE_NOTE = (
    "its result logs could not be read: the numbers are of the round's table of hyperparameters, "
    "and it met the target by the rules"
)
ALIBABA_NOTE = (
    "crops, precision and what is exempt are NVIDIA's: Alibaba's files are settings of that code"
)
NVIDIA_DATA = replace(
    DATA,
    max_aspect=4 / 3,  # [code: v0.7 NVIDIA run_and_time.sh]
    interpolation="bilinear",  # [code: v0.7 NVIDIA common/dali.py] RandomResizedCrop, Resize
    eval_crop="short_side",  # [code: v0.7 NVIDIA common/dali.py] resize_shorter, then the centre
    eval_short_side=256,  # [code: v0.7 NVIDIA common/dali.py]
)


def _batch(row: str) -> int:
    _, _, batch, *_ = row.split("-")
    return int(batch)


def _epochs(updates: float, batch: int) -> float:
    """Exact epochs of so many updates, rounded down: the first update at or after them is that."""
    return math.floor(1e4 * updates * batch / 1_281_167) / 1e4  # [derived] ImageNet has so many


def _title(row: str, log: str | None) -> str:
    submitter, round_, *_ = row.split("-")
    names = {"google": "Google", "nvidia": "NVIDIA", "dellemc": "Dell EMC", "alibaba": "Alibaba"}
    what = f"{names[submitter]}, ResNet-50 at {_batch(row):,} images"
    return f"MLPerf Training {round_}: {what}" + (f" ({log})" if log else "")


def _expected(row: str, log: str) -> Expected:
    submitter, round_, *_ = row.split("-")
    result = published.load()[f"mlperf-{round_}-{submitter}-{log}"]
    return Expected(
        result.error_pct,  # [code: result logs]
        std=result.std,  # [code: result logs]
        runs=5,  # [code: result logs]
        reached=result.reached,  # [derived] its updates; the rest is of the result logs
        source=f"result logs {round_}, at the stop",
    )


def _google(row, span, rate, warmup, decay, momentum, updates, first, log):
    """A run of Google's on TPUs. Arguments: of the log, lengths in updates, and its folder."""
    batch = _batch(row)
    return replace(
        COMMON,
        row=row,
        title=_title(row, log),
        model=replace(COMMON.model, bn_batch=span),  # [code: result log] model_bn_span
        global_batch=batch,  # [code: result log] global_batch_size
        epochs=_epochs(updates, batch),  # [derived] train_steps of run_and_time.sh
        reference_rate=rate,  # [code: result log] lars_opt_base_learning_rate
        reference_batch=batch,  # [code: result log]
        optimizer=replace(
            COMMON.optimizer,
            momentum=momentum,  # [code: result log; 0.9 of the reference where none is logged]
            weight_decay=decay,  # [code: result log] lars_opt_weight_decay
        ),
        schedule=replace(
            COMMON.schedule,
            # T - W + 1 is logged as lars_opt_learning_rate_decay_steps.
            warmup_epochs=_epochs(warmup, batch),  # [derived] updates W of the result log
        ),
        stop=replace(COMMON.stop, first_epoch=first),  # [code: result log] eval_accuracy
        expected=_expected(row, log),
        notes=(NOTE, GOOGLE_NOTE),
    )


def _google_first(*run, epsilon):
    """The same in round v0.6, with the optimizer that TensorFlow 1 had."""
    return replace(
        _google(*run),
        data=FIRST_DATA,
        optimizer=replace(
            _google(*run).optimizer,
            epsilon=epsilon,  # [code: result log]
            momentum_placement="whole",  # [code: tf.contrib LARSOptimizer of 2018]
        ),
    )


def _nvidia(row, span, rate, warmup, decay, momentum, epochs, first, log):
    """A run of NVIDIA's code with LARS. Arguments: as in the table of results, and the log."""
    batch = _batch(row)
    return replace(
        COMMON,
        row=row,
        title=_title(row, log),
        data=NVIDIA_DATA,
        model=replace(
            COMMON.model,
            last_gamma=1.0,  # [code: v0.7 NVIDIA, closed division] no zero gamma
            bn_batch=span,  # [code: result log] model_bn_span
        ),
        global_batch=batch,  # [code: result log] global_batch_size
        epochs=epochs,  # [code: result log] of the schedule, not of the stop
        whole_epochs=True,  # [code: v0.7 NVIDIA fit.py] the updates of each epoch are rounded up
        reference_rate=rate,  # [code: result log] lars_opt_base_learning_rate
        reference_batch=batch,  # [code: result log]
        optimizer=replace(
            COMMON.optimizer,
            momentum=momentum,  # [code: result log; 0.9 of the reference where none is logged]
            weight_decay=decay,  # [code: result log] lars_opt_weight_decay
            momentum_placement="outside",  # [code: v0.7 NVIDIA fit.py] momentum correction
        ),
        schedule=replace(
            COMMON.schedule,
            warmup_epochs=warmup,  # [code: result log] lars_opt_learning_rate_warmup_epochs
            extra_updates=0,  # [code: v0.7 NVIDIA fit.py] T - W
        ),
        precision="float16",  # [code: v0.7 NVIDIA]
        wire="float16",  # [recall] gradients are kept in float16
        stop=replace(COMMON.stop, first_epoch=first),  # [code: result log] eval_accuracy
        expected=_expected(row, log),
        notes=(NOTE, NVIDIA_NOTE),
    )


def _nvidia_to_zero(*run):
    """The same with a rate that ends at zero."""
    return replace(
        _nvidia(*run),
        schedule=replace(
            _nvidia(*run).schedule,
            end_rate=0.0,  # [code: result log] v0.6, n96 and n130
        ),
    )


def _nvidia_sgd(*run):
    """A run of NVIDIA's code with momentum SGD."""
    return replace(
        _nvidia(*run),
        optimizer=SGDSpec(
            momentum=_nvidia(*run).optimizer.momentum,  # [code: result log]
            nesterov=False,  # [code: v0.7 NVIDIA fit.py]
            weight_decay=_nvidia(*run).optimizer.weight_decay,  # [code: result log]
            exclude_rank_below=2,  # [code: v0.7 NVIDIA fit.py]
        ),
    )


# fmt: off
A100 = _nvidia("nvidia-v0.7-34560", 45, 21.6, 17, 2.5e-5, 0.94, 59,  # [code: result log]
               3, "dgxa100_n96_ngc20.06_mxnet")  # [code: result log]
# fmt: on


def _table(row, rate, warmup, epochs, whole):
    """Another run on A100s, of which the result log cannot be read: by the table of the round."""
    return replace(
        A100,
        row=row,
        title=_title(row, None),
        model=replace(A100.model, bn_batch=29),  # [code: v0.7 all_hyper_params.md] model_bn_span
        global_batch=_batch(row),  # [code: v0.7 all_hyper_params.md]
        epochs=epochs,  # [code: v0.7 all_hyper_params.md]
        whole_epochs=whole,  # [derived] int(images / GPUs) / 29 of a GPU, rounded up as in fit.py
        reference_rate=rate,  # [code: v0.7 all_hyper_params.md]
        reference_batch=_batch(row),  # [code: v0.7 all_hyper_params.md]
        optimizer=replace(A100.optimizer, momentum=0.94, weight_decay=2.5e-5),  # [code: v0.7 table]
        schedule=replace(A100.schedule, warmup_epochs=warmup),  # [code: v0.7 all_hyper_params.md]
        # EVAL_OFFSET 1 of config_DGXA100_multi_192x8x29.sh; of 53,360 it is not known.
        stop=replace(COMMON.stop, first_epoch=2),  # [code: v0.7 NVIDIA configs]
        expected=None,
        notes=(NOTE, NVIDIA_NOTE, TABLE_NOTE),
    )


# Each: row, images of one batch norm, rate, warmup, decay, momentum, length, first epoch that is
# evaluated, log's folder; warmup and length in updates for Google, in epochs for the others.
# fmt: off
ROWS = {
    "dellemc-v0.7-832": _nvidia_sgd(
        "dellemc-v0.7-832", 208, 3.0, 3, 2.5e-5, 0.9, 42, 4, "C4140"),  # [code: log]
    "dellemc-v0.7-1664": _nvidia_sgd(
        "dellemc-v0.7-1664", 208, 3.0, 3, 2.5e-5, 0.9, 42, 4, "2xC4140"),  # [code: log]
    "nvidia-v0.7-3264": _nvidia_sgd(
        "nvidia-v0.7-3264", 408, 6.0, 5, 2.5e-5, 0.9, 42,  # [code: result log]
        1, "dgxa100_ngc20.06_mxnet"),  # [code: result log]
    "dellemc-v0.7-3328": _nvidia_sgd(
        "dellemc-v0.7-3328", 208, 3.1, 6, 2.5e-5, 0.95, 42, 1, "4xC4140"),  # [code: log]
    "nvidia-v0.7-1664": _nvidia(
        "nvidia-v0.7-1664", 208, 7.4, 2, 1e-4, 0.9, 37, 1, "dgx1_ngc20.06_mxnet"),  # [code: log]
    "nvidia-v1.0-3264": _nvidia(
        "nvidia-v1.0-3264", 408, 10.5, 2, 5e-5, 0.9, 37,  # [code: result log]
        3, "dgxa100_ngc21.05_mxnet"),  # [code: result log]
    "google-v0.7-2048": _google(
        "google-v0.7-2048", 128, 8.5, 3127, 2e-4, 0.9, 25656, 2, "tpu-v4-16-TF"),  # [code: log]
    "google-v0.7-4096": _google(
        "google-v0.7-4096", 128, 13.0, 624, 2e-4, 0.9, 12792, 2, "tpu-v3-32-TF2.0"),  # [code: log]
    "google-v0.7-8192": _google(
        "google-v0.7-8192", 64, 17.0, 781, 2e-4, 0.9, 6875, 4, "tpu-v4-512-TF"),  # [code: log]
    "nvidia-v1.0-13056": _nvidia(
        "nvidia-v1.0-13056", 204, 12.8, 9, 2.5e-5, 0.94, 48,  # [code: result log]
        1, "dgxa100_n8_ngc21.05_mxnet"),  # [code: result log]
    "google-v0.6-16384": _google_first(
        "google-v0.6-16384", 128, 25.0, 390, 2e-4, 0.9, 5634,  # [code: result log]
        4, "tpu-v3-128", epsilon=0.0),  # [code: result log]
    "google-v0.6-32768": _google_first(
        "google-v0.6-32768", 128, 31.2, 977, 1e-4, 0.9, 2983,  # [code: result log]
        4, "tpu-v3-2048", epsilon=1e-5),  # [code: result log]
    "nvidia-v0.6-33280": _nvidia(
        "nvidia-v0.6-33280", 65, 31.2, 25, 2e-4, 0.9, 77,  # [code: result log]
        4, "dgx2h_n32_ngc19.05_mxnet"),  # [code: result log]
    "nvidia-v0.7-33280": _nvidia(
        "nvidia-v0.7-33280", 65, 21.2, 16, 2.5e-5, 0.94, 58,  # [code: result log]
        4, "dgx2h_n32_ngc20.06_mxnet"),  # [code: result log]
    "nvidia-v0.7-34560": A100,
    "google-v1.0-32768": _google(
        "google-v1.0-32768", 64, 29.0, 703, 1e-4, 0.929, 2355, 4, "tpu-v4-4096-TF"),  # [code: log]
    "nvidia-v0.6-54080": _nvidia_to_zero(
        "nvidia-v0.6-54080", 52, 38.0, 25, 2e-4, 0.9, 90,  # [code: result log]
        2, "dgx1_n130_ngc19.05_mxnet"),  # [code: result log]
    "google-v1.0-55296": _google(
        "google-v1.0-55296", 64, 25.67, 671, 1e-4, 0.94053, 1860,  # [code: result log]
        4, "tpu-v4-6912-TF"),  # [code: result log]
    "nvidia-v0.6-59904": _nvidia_to_zero(
        "nvidia-v0.6-59904", 39, 40.7, 33, 2e-4, 0.9, 90,  # [code: result log]
        2, "dgx2h_n96_ngc19.05_mxnet"),  # [code: result log]
    "nvidia-v0.7-44544": _table(
        "nvidia-v0.7-44544", 23.5, 22, 70, True),  # [code: v0.7 all_hyper_params.md]
    "nvidia-v0.7-53360": _table(
        "nvidia-v0.7-53360", 25.0,  # [code: v0.7 all_hyper_params.md]
        # 29 and 82 epochs of 24 updates: 696 images a GPU.
        _epochs(29 * 24, 53360), _epochs(82 * 24, 53360), False),  # [derived] from the same
    "alibaba-v0.7-57600": replace(
        _nvidia(
            "alibaba-v0.7-57600", 45, 23.5, 22, 2.5e-5, 0.94, 71, 3, "v100-1280"  # [code: log]
        ),
        notes=(NOTE, NVIDIA_NOTE, ALIBABA_NOTE)),
    "google-v0.7-65536-tf": _google(
        "google-v0.7-65536-tf", 64, 24.699, 606, 1e-4, 0.951807, 1738,  # [code: result log]
        4, "tpu-v3-8192-TF"),  # [code: result log]
    "google-v0.7-65536-jax": _google(
        "google-v0.7-65536-jax", 64, 23.080977304670448, 651.75,  # [code: result log]
        1e-4, 0.9537213777059405, 1817, 4, "tpu-v3-8192-JAX"),  # [code: result log]
}
# fmt: on
RECIPE = ROWS["google-v0.7-65536-jax"]

# Ours: 4,096 images an update of Fashion-MNIST, with the winning row's shares of the run.
LARGE = you_alexnet.fashion(
    RECIPE,
    batch=4096,  # ours
    rate=8.0,  # ours
    schedule=COMMON.schedule.stretched(12 / COMMON.epochs),  # ours: the log's 33 of 92 epochs
)
SGD = replace(
    LARGE,
    reference_rate=0.4,  # ours
    optimizer=SGDSpec(momentum=0.9, weight_decay=1e-4),  # ours: as small submissions, as LARS
)
TARGET = StopSpec(target_pct=87.0, every_epochs=1)  # ours: every 12th of the run, as 4 of 48 epochs

MINIATURE = Miniature(
    contrast="The large submissions' course (a third of the run warming up, then a parabola) for "
    "LARS and for momentum SGD, 176 updates of 4,096 images on Fashion-MNIST, for a fully "
    "connected network; each row at the best of five rates. Two of them run again to a target, as "
    "the benchmark does: what counts is what they take.",
    rows=(
        Row(
            "SGD, short warmup",
            "the small submissions' course: 3 of 42 epochs warming up",
            replace(
                SGD,
                reference_rate=0.2,  # ours
                schedule=ROWS["dellemc-v0.7-1664"].schedule.stretched(12 / 42),  # ours
            ),
            ROWS["dellemc-v0.7-1664"].expected,
            of="dellemc-v0.7-1664",
        ),
        Row("SGD, long warmup", "the large submissions' course with the small ones' rule", SGD),
        Row(
            "LARS, long warmup",
            "the large submissions' rule: a rate per tensor, momentum 0.954",
            LARGE,
            RECIPE.expected,
            of="google-v0.7-65536-jax",
        ),
        Row("SGD, to 87 %", "ends at its target", replace(SGD, stop=TARGET)),
        Row("LARS, to 87 %", "ends at its target", replace(LARGE, stop=TARGET), RECIPE.expected),
    ),
    claims=(
        Contrast(
            "SGD, long warmup",
            "LARS, long warmup",
            "more",
            "LARS holds at a batch at which SGD does not",
            smallest=0.5,  # ours: 50 of 10,000 test images
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
