"""Updates that workers take apart, and the averages at which they agree: local SGD.

A *worker* holds weights, slots and batch-norm statistics of its own. A replica stands for as many
workers as it takes: one on a machine with a device for each, all of them where one device simulates
the rest. Their state is kept along a leading axis, beside the model. The step takes one worker's
out of it into the model's variables, runs the same update as ever on that worker's share of the
batch, and puts it back: nothing is summed and nothing sent. An average is one packed all-reduce.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.optimizers import KFAC, LARS, MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check
from tf_largebatch.records.local import LocalSchedule
from tf_largebatch.training.step import COLUMNS, TrainingStep, nbytes, take_rows

# Of a row: what is a norm, and what names a tensor. The rest are means over examples.
_NORMS = np.isin(COLUMNS, ["grad_norm", "micro_grad_norm"])
_PLACES = np.isin(COLUMNS, ["first_bad_tensor"])


class LocalStep(TrainingStep):
    """Runs updates of K workers apart, and averages them when the schedule says so.

    With w_k, v_k and s_k the weights, slots and batch-norm statistics of worker k, an average is

        w_k = 1/K sum_j w_j    s_k = 1/K sum_j s_j
        v_k = v_k ("kept"), 1/K sum_j v_j ("averaged") or 0 ("reset")

    (Lin et al. 2018, arXiv:1808.07217; "kept" is `optim/local_sgd.py` of their code). At the first
    local update all workers have what synchronous training has left. A row holds means over the
    workers; the two norms are root mean squares of each worker's own, since nobody has the whole
    gradient.

    Args:
        schedule: of the averages.
        plan: how replicas split a global batch; worker k has the k-th share of it.
        model, optimizer, loss, strategy, options: as for `TrainingStep`, and shared with it.

    Attributes:
        kept: what a checkpoint must hold besides: slots [K, ...] that workers keep, filled by
            `collect`, without rows before that.

    ValueError: workers do not divide, or the optimizer has state that cannot be averaged so.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        schedule: LocalSchedule,
        plan: BatchPlan,
        loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        strategy: tf.distribute.Strategy,
        **options,
    ):
        self.schedule = schedule
        count = schedule.workers
        fix = f"Use replicas that divide {count}."
        whole = count % plan.replicas == 0
        check(whole, "workers", f"a multiple of {plan.replicas} replicas", count, fix)
        _check_optimizer(optimizer, schedule.slots)
        check(not options.get("scale_loss"), "scale_loss", "False with local updates", True)
        self._here = count // plan.replicas  # workers of one replica
        super().__init__(
            model, optimizer, loss=loss, plan=plan.of_workers(count), strategy=strategy, **options
        )
        state = [v for v in model.non_trainable_variables if _is_float(v)]
        rate = getattr(optimizer, "_learning_rate", None)  # a variable where it is no schedule
        self._slots = [v for v in optimizer.variables if _is_float(v) and v is not rate]
        self._weights = [*model.trainable_variables, *state]
        self._averaged = [*self._weights, *(self._slots if schedule.slots == "averaged" else [])]
        of_model = [*model.trainable_variables, *model.non_trainable_variables]
        with strategy.scope():
            self._copies = [
                (v, tf.Variable(tf.zeros([self._here, *v.shape], v.dtype), trainable=False))
                for v in (*of_model, *optimizer.variables)
            ]
        self.kept = []
        if schedule.slots == "kept":
            self.kept = [
                tf.Variable(
                    tf.zeros([0, *v.shape], v.dtype), shape=[None, *v.shape], trainable=False
                )
                for v in self._slots
            ]
        self._begun = False
        self._scatter = tf.function(lambda: strategy.run(self._spread), autograph=False)
        self._gather = tf.function(self._gather_kept, autograph=False)
        self._show = tf.function(self._average_shown, autograph=False)

    def begin(self) -> None:
        """Gives every worker what the model and a checkpoint hold; later calls do nothing."""
        if self._begun:
            return
        self._begun = True
        self._scatter()
        kept = [tf.convert_to_tensor(v) for v in self.kept]
        if kept and kept[0].shape[0]:
            self.strategy.run(self._take_kept, args=(kept,))

    def show_average(self) -> None:
        """Puts the average into the model, to be evaluated; the workers go on from their own."""
        self._show()

    def collect(self, update: int) -> None:
        """Brings the slots that workers keep into `kept`; every process must call it."""
        if self.kept and update > self.schedule.start_update:
            for variable, value in zip(self.kept, self._gather(), strict=True):
                variable.assign(value)

    @property
    def collects(self) -> bool:
        """Whether `collect` needs the other processes."""
        return bool(self.kept) and self.strategy.num_replicas_in_sync > 1

    def bytes_sent(self, first: int, end: int) -> int:
        """What a worker hands over in these updates: rows, and the averages between them."""
        rows = (end - first) * len(COLUMNS) * tf.float32.size
        return rows + self.schedule.averages(first, end) * nbytes(self._averaged)

    @property
    def bytes_shown(self) -> int:
        """What `show_average` adds to that."""
        return nbytes(self._weights)

    def _run(self, iterator, updates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sums, waited = super()._run(iterator, updates)
        return self._means(sums), waited

    def _row_of(self, batch: tuple) -> tf.Tensor:
        """One update of each worker of this process, and the average if it is due: sums of rows."""

        def body(j, total):
            rows = self.strategy.run(self._update_one, args=(j, *batch))
            for row in self.strategy.experimental_local_results(rows):
                total = tf.where(_PLACES, tf.maximum(total, row), total + row)
            return j + 1, total

        start = tf.constant(0), tf.constant(np.where(_PLACES, -1.0, 0.0), tf.float32)
        _, total = tf.while_loop(lambda j, _: j < self._here, body, start, parallel_iterations=1)
        done = tf.cast(tf.convert_to_tensor(self.optimizer.iterations.value), tf.int64)
        due = (done % self.schedule.local_steps == 0) | (done >= self.schedule.updates)

        def average():
            self.strategy.run(self._agree)
            return 0

        tf.cond(due, average, lambda: 0)
        return total

    def _update_one(self, j: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The update of this replica's j-th worker."""
        for variable, copies in self._copies:
            variable.assign(tf.gather(copies, j))
        size = self.plan.replica_batch
        x, y = (take_rows(rows, j * size, size) for rows in (images, labels))
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        row = self._update(x, y, share=replica * self._here + j)
        for variable, copies in self._copies:
            value = tf.convert_to_tensor(variable.value)[tf.newaxis]
            copies.scatter_update(tf.IndexedSlices(value, tf.reshape(j, [1])))
        return tf.where(_NORMS, row * row, row)

    def _reduce(self, steps, gradients, state, totals):
        """Means over the worker's share; the loss was divided by the global batch."""
        count = self.schedule.workers
        state = [s / tf.cast(steps, s.dtype) if s.dtype.is_floating else s for s in state]
        return [g * tf.cast(count, g.dtype) for g in gradients], state, totals * count

    def _means(self, sums: tf.Tensor) -> tf.Tensor:
        """Rows of means over all workers, from their sums over those of this process."""
        strategy = self.strategy
        local = len(strategy.experimental_local_results(strategy.run(lambda: tf.constant(0))))
        if local < strategy.num_replicas_in_sync:

            def gather():
                context = tf.distribute.get_replica_context()
                return context.all_gather(sums[tf.newaxis], axis=0)

            each = strategy.experimental_local_results(strategy.run(gather))[0][::local]
            sums = tf.where(_PLACES, tf.reduce_max(each, axis=0), tf.reduce_sum(each, axis=0))
        means = tf.where(_PLACES, sums, sums / self.schedule.workers)
        return tf.where(_NORMS, tf.sqrt(means), means)

    def _agree(self) -> None:
        """The average, on one replica."""
        self._average(self._averaged, keep=True)
        for variable in self._slots if self.schedule.slots == "reset" else []:
            variable.assign(tf.zeros_like(variable.value))
            copies = self._copies_of(variable)
            copies.assign(tf.zeros_like(copies))

    def _average_shown(self) -> None:
        self.strategy.run(self._average, args=(self._weights,), kwargs={"keep": False})

    def _average(self, variables: list[keras.Variable], *, keep: bool) -> None:
        copies = [self._copies_of(variable) for variable in variables]
        sums = self._sum_over_replicas([tf.reduce_sum(c, axis=0) for c in copies])
        for variable, copy, total in zip(variables, copies, sums, strict=True):
            mean = total / tf.cast(self.schedule.workers, total.dtype)
            variable.assign(mean)
            if keep:
                copy.assign(tf.broadcast_to(mean, copy.shape))

    def _spread(self) -> None:
        for variable, copies in self._copies:
            copies.assign(tf.broadcast_to(tf.convert_to_tensor(variable.value), copies.shape))

    def _gather_kept(self) -> list[tf.Tensor]:
        def gather():
            context = tf.distribute.get_replica_context()
            mine = [tf.identity(self._copies_of(v)) for v in self._slots]
            if context.num_replicas_in_sync == 1:
                return mine
            return [context.all_gather(value, axis=0) for value in mine]

        values = self.strategy.run(gather)
        return [self.strategy.experimental_local_results(v)[0] for v in values]

    def _take_kept(self, kept: list[tf.Tensor]) -> None:
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * self._here
        for variable, value in zip(self._slots, kept, strict=True):
            self._copies_of(variable).assign(value[first : first + self._here])

    def _copies_of(self, variable: keras.Variable) -> tf.Variable:
        return next(copies for v, copies in self._copies if v is variable)


def _is_float(variable: keras.Variable) -> bool:
    return tf.as_dtype(variable.dtype).is_floating


def _check_optimizer(optimizer: keras.optimizers.Optimizer, slots: str) -> None:
    """Refuses K-FAC, what is no momentum where it is reset, and what counts on every update."""
    rule = "one whose updates a worker can take alone"
    check(
        not isinstance(optimizer, KFAC), "optimizer", rule, "KFAC", "Its factors are sums of all."
    )
    plain = isinstance(optimizer, MomentumSGD | LARS | keras.optimizers.SGD)
    rule = f'"kept" or "averaged" with {type(optimizer).__name__}, which counts its updates'
    check(plain or slots != "reset", "slots", rule, slots)
    for name in ("use_ema", "gradient_accumulation_steps"):
        value = getattr(optimizer, name, None)
        check(not value, name, "off where updates are local", value)
