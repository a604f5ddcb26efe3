"""What the optimizers share: exemptions, clipping after the reduction, state that survives."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers import checks, kernels
from tf_largebatch.optimizers.exemptions import (
    Exemption,
    check_unambiguous,
    listed_pattern,
    resolve,
    variable_path,
)
from tf_largebatch.optimizers.state import TensorNorms, restore


class LargeBatchOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer whose decay is its own and whose clipping sees the whole gradient.

    Differences from `keras.optimizers.Optimizer`:

      decay     never applied by the base class, which takes it outside the update, times the rate.
      clipping  after the sum over replicas; the base class clips each replica's part before it.
      sparse    gradients are summed over repeated rows and made dense on arrival.
      16 bits   gradients, slots, norms and arithmetic are float32 beside 16-bit weights.
      exempt    tensors are chosen by path and rank at `build`, kept in the config, and listed by
                `exemptions()`. Begin a pattern at a layer, "(^|/)conv1/", not at the model: a
                `Sequential` loaded from a file has lost its own name from the paths.
      restore   state of other variables is an error, not a warning.
      updates   with `gradient_accumulation_steps` a schedule and a moving average count updates;
                the base class shows them every micro-step.

    Subclasses write `_build_slots` and `update_step`.
    """

    # Whether the rule has a trust ratio that tensors can be exempt from.
    adapts = False

    def __init__(
        self,
        learning_rate,
        *,
        weight_decay=0.0,
        no_decay=(),
        no_adaptation=(),
        exclude_rank_below=2,
        record_norms=False,
        record_trust_ratio=False,
        **kwargs,
    ):
        kwargs = checks.check_keras_arguments(type(self).__name__, kwargs)
        decay = checks.check_number(
            "weight_decay",
            0.0 if weight_decay is None else weight_decay,
            fix="Give the L2 coefficient, for instance 1e-4; None means 0.",
        )
        super().__init__(checks.check_learning_rate(learning_rate), weight_decay=decay, **kwargs)
        self.no_decay = checks.check_patterns("no_decay", no_decay)
        self.no_adaptation = checks.check_patterns("no_adaptation", no_adaptation)
        if self.no_adaptation and not self.adapts:
            raise ValueError(
                f"`no_adaptation` must be left out of {type(self).__name__}, which has no trust "
                f"ratio. Received: no_adaptation={no_adaptation!r}. Use LARS or LAMB."
            )
        self.exclude_rank_below = checks.check_rank("exclude_rank_below", exclude_rank_below)
        self.record_norms = checks.check_flag("record_norms", record_norms)
        self.record_trust_ratio = checks.check_flag("record_trust_ratio", record_trust_ratio)
        self._listed_paths = ()
        self._exemptions = ()
        self._saved_state = None

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Exempts tensors from weight decay, in addition to those exempt already.

        Args:
            var_list: variables, kept by path.
            var_names: regular expressions searched in `variable.path`.

        Raises:
            ValueError: the optimizer is built already, or a pattern is not valid.
        """
        patterns = self._patterns_of("exclude_from_weight_decay", var_list, var_names)
        self.no_decay = self.no_decay + patterns

    def exclude_from_layer_adaptation(self, var_list=None, var_names=None):
        """Exempts tensors from the trust ratio, in addition to those exempt already.

        Args:
            var_list: variables, kept by path.
            var_names: regular expressions searched in `variable.path`.

        Raises:
            ValueError: the optimizer is built already, has no trust ratio, or a pattern is not
                valid.
        """
        if not self.adapts:
            raise ValueError(
                f"`exclude_from_layer_adaptation` needs an optimizer with a trust ratio. "
                f"Received: {type(self).__name__}. Use LARS or LAMB, or leave the call out."
            )
        patterns = self._patterns_of("exclude_from_layer_adaptation", var_list, var_names)
        self.no_adaptation = self.no_adaptation + patterns

    def exemptions(self) -> tuple[Exemption, ...]:
        """One row (path, shape, decay, adapted) for each variable, in the order of `build`."""
        if not self.built:
            raise ValueError(
                "`exemptions()` must be called on a built optimizer. Received: built=False. "
                "Call `optimizer.build(model.trainable_variables)` first."
            )
        return self._exemptions

    def recorded_norms(self) -> tuple[TensorNorms, ...]:
        """The norms of the last update, one row a variable, in the order of `build`.

        Raises:
            ValueError: the optimizer was made without `record_norms=True`, or is not built.
        """
        if not self.record_norms:
            raise ValueError(
                "`recorded_norms()` needs an optimizer that records. Received: record_norms=False. "
                f"Make it with {type(self).__name__}(..., record_norms=True)."
            )
        rows = self.exemptions()
        values = self._norms.numpy()
        return tuple(
            TensorNorms(row.path, *map(float, value))
            for row, value in zip(rows, values, strict=True)
        )

    def trust_ratios(self) -> dict[str, float]:
        """The ratio that the last update applied to each adapted tensor, by path; 1 before any.

        Exempt tensors, which have none, are left out.

        Raises:
            ValueError: the optimizer was made without `record_trust_ratio=True`, or is not built.
        """
        if not self.record_trust_ratio:
            raise ValueError(
                "`trust_ratios()` needs an optimizer that records. Received: "
                "record_trust_ratio=False. Use LARS or LAMB with record_trust_ratio=True."
            )
        paths = [row.path for row in self.exemptions() if row.adapted]
        return {path: float(r.numpy()) for path, r in zip(paths, self._ratios, strict=True)}

    def build(self, variables: Sequence[keras.Variable]):
        """Creates the slots and decides which tensors are exempt."""
        if self.built:
            return
        variables = list(variables)
        self._check_replicas()
        for method, path in self._listed_paths:
            check_unambiguous(method, path, variables)
        rows = resolve(
            variables,
            no_decay=self.no_decay,
            no_adaptation=self.no_adaptation,
            exclude_rank_below=self.exclude_rank_below,
            adapts=self.adapts,
        )
        super().build(variables)
        self._exemptions = rows
        self._build_slots(variables)
        if self.record_norms:
            # One row a variable: the norms of weight, gradient and update, and the trust ratio.
            self._norms = self.add_variable((len(variables), 4), dtype="float32", name="norms")
        if self.record_trust_ratio:
            # One scalar each: to store it takes no kernel and reads no table.
            self._ratios = [
                self.add_variable((), initializer="ones", dtype="float32", name="trust_ratio")
                for row in rows
                if row.adapted
            ]
        if self._saved_state is not None:
            restore(self.name, self.variables, self._saved_state)
            self._saved_state = None

    def add_variable(
        self,
        shape,
        initializer="zeros",
        dtype=None,
        aggregation="none",
        layout=None,
        name=None,
    ):
        """Adds an optimizer variable; beside a 16-bit weight it has 32 bits."""
        # Moving averages of the weights are copied back into them: those keep their dtype.
        if str(dtype) in ("float16", "bfloat16") and not str(name).endswith("_average"):
            dtype = "float32"
        return super().add_variable(shape, initializer, dtype, aggregation, layout, name)

    def apply(self, grads, trainable_variables=None):
        """Updates the variables by these gradients, sparse ones made dense first."""
        grads = list(grads)
        known = self._trainable_variables if trainable_variables is None else trainable_variables
        known = list(known)
        if len(known) == len(grads):
            grads = [kernels.to_dense(g, v) for g, v in zip(grads, known, strict=True)]
        return super().apply(grads, None if trainable_variables is None else known)

    def get_config(self):
        """The arguments of this optimizer, from which an equal one can be made."""
        config = {
            **super().get_config(),
            "no_decay": list(self.no_decay),
            "exclude_rank_below": self.exclude_rank_below,
            "record_norms": self.record_norms,
        }
        if self.adapts:  # the others have no such arguments
            config["no_adaptation"] = list(self.no_adaptation)
            config["record_trust_ratio"] = self.record_trust_ratio
        return config

    def load_own_variables(self, store):
        """Restores the state; an optimizer that is not built yet keeps it until `build`.

        Raises:
            ValueError: the state was saved for other variables.
        """
        state = [np.asarray(store[str(i)]) for i in range(len(store.keys()))]
        if self.built or len(state) == len(self.variables):
            restore(self.name, self.variables, state)
        else:
            self._saved_state = tuple(state)

    def _build_slots(self, variables):
        raise NotImplementedError

    def _decay_of(self, index: int) -> float:
        return self.weight_decay if self._exemptions[index].decay else 0.0

    def _record(self, index, weight_norm, gradient_norm, update_norm, trust_ratio=1.0):
        columns = (weight_norm, gradient_norm, update_norm, trust_ratio)
        row = ops.stack([ops.cast(column, "float32") for column in columns])
        table = ops.convert_to_tensor(self._norms)
        self.assign(self._norms, ops.slice_update(table, (index, 0), row[None]))

    def _record_ratio(self, index, trust_ratio):
        if self.record_trust_ratio and self._exemptions[index].adapted:
            place = sum(row.adapted for row in self._exemptions[:index])
            self.assign(self._ratios[place], ops.cast(trust_ratio, "float32"))

    def _patterns_of(self, method, var_list, var_names):
        if self.built:
            raise ValueError(
                f"`{method}` must be called before the optimizer is built. Received: built=True. "
                "Call it before `fit` or `build`, or pass the patterns to the constructor."
            )
        listed = tuple(variable_path(variable) for variable in var_list or ())
        self._listed_paths = self._listed_paths + tuple((method, path) for path in listed)
        names = checks.check_patterns("var_names", var_names or ())
        return tuple(listed_pattern(path) for path in listed) + names

    def _check_replicas(self):
        if not kernels.on_tensorflow() or self._distribution_strategy.num_replicas_in_sync == 1:
            return
        for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
            value = getattr(self, name)
            if value:
                raise ValueError(
                    f"`{name}` must be None on several replicas, where Keras cannot compile it. "
                    f"Received: {name}={value}. Accumulate micro-batches in the training step, "
                    "and overwrite by averages between updates."
                )

    def _get_current_learning_rate(self):
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.gradient_accumulation_steps:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        steps = self.gradient_accumulation_steps
        is_update = ops.equal((self._iterations + 1) % steps, 0)
        for variable, average in zip(
            trainable_variables, self._model_variables_moving_average, strict=True
        ):
            if average is None:
                continue
            momentum = self.ema_momentum * ops.cast(self.iterations > 0, average.dtype)
            moved = momentum * average + (1.0 - momentum) * variable
            average.assign(ops.where(is_update, moved, average))

    def _apply_weight_decay(self, variables):
        # Decay is part of `update_step`; the base class would add rate * decay * w outside it.
        return

    def _clip_gradients(self, grads):
        # The base class clips here, each replica's part for itself; see `_backend_update_step`.
        return grads

    def _clip_reduced(self, grads):
        if self.clipnorm is not None:
            return kernels.clip_each(grads, self.clipnorm)
        if self.global_clipnorm is not None:
            return kernels.clip_together(grads, self.global_clipnorm)
        if self.clipvalue is not None:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        return grads

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        learning_rate = ops.convert_to_tensor(learning_rate)
        if not kernels.on_tensorflow():
            super()._backend_update_step(
                self._clip_reduced(grads), trainable_variables, learning_rate
            )
            return
        # The base class with one line more: the clipping between reduction and update.
        import tensorflow as tf

        variables = [v.value if isinstance(v, keras.Variable) else v for v in trainable_variables]
        pairs = self._all_reduce_sum_gradients(list(zip(grads, variables, strict=True)))
        clipped = self._clip_reduced([gradient for gradient, _ in pairs])
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._distributed_tf_update_step,
            self._distribution_strategy,
            list(zip(clipped, variables, strict=True)),
            learning_rate,
        )
