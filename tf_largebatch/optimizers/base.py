"""What the optimizers share: options, exemptions, clipping after the reduction, saved state."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers import state, tensors
from tf_largebatch.optimizers.exemptions import (
    Exemption,
    check_unambiguous,
    listed_pattern,
    resolve,
    variable_path,
)
from tf_largebatch.optimizers.options import (
    AdaptiveOptions,
    Options,
    Rate,
    check_keras_options,
    check_rate,
)
from tf_largebatch.optimizers.tensors import Tensor
from tf_largebatch.records.checks import (
    check,
    check_count,
    check_flag,
    check_number,
    check_patterns,
)


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

    Subclasses write `_build_slots` and `update_step`, and name their arguments in `own_options`.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        weight_decay: number >= 0, `decay` in the equations; None is 0. Not decoupled: it is in the
            gradient (LAMB: in the step), so under a trust ratio its effect is lr * r * decay.
        no_decay: regular expressions searched in `variable.path`: tensors without decay.
        no_adaptation: the same: tensors without trust ratio (LARS and LAMB).
        exclude_rank_below: tensors of lower rank have neither; 0 switches that off.
        record_trust_ratio: whether each update keeps the r that `trust_ratios()` reads, one scalar
            a tensor (LARS and LAMB).
        **keras_options: `clipnorm`, `clipvalue`, `global_clipnorm` (all three act on the gradient
            after the sum over replicas, before norms and decay), `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`, `gradient_accumulation_steps`, `name`:
            as in `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument is unknown or out of range; at `build`, a pattern matches no
            variable.
    """

    # Whether the rule has a trust ratio that tensors can be exempt from.
    adapts: ClassVar[bool] = False
    # The keyword arguments that a rule has for itself, each kept under its own name.
    own_options: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: Rate,
        *,
        weight_decay: float | None = 0.0,
        no_decay: Iterable[str] = (),
        no_adaptation: Iterable[str] = (),
        exclude_rank_below: int = 2,
        record_trust_ratio: bool = False,
        **keras_options: Any,
    ) -> None:
        decay = check_number(
            "weight_decay",
            0.0 if weight_decay is None else weight_decay,
            fix="Give the L2 coefficient, for instance 1e-4; None means 0.",
        )
        shared = AdaptiveOptions if self.adapts else Options
        known = (*self.own_options, *shared.__annotations__)
        keras_options = check_keras_options(type(self).__name__, keras_options, known)
        super().__init__(check_rate(learning_rate), weight_decay=decay, **keras_options)
        self.no_decay = check_patterns("no_decay", no_decay)
        self.no_adaptation = check_patterns("no_adaptation", no_adaptation)
        self.exclude_rank_below = check_count(
            "exclude_rank_below",
            exclude_rank_below,
            0,
            "2 exempts scalars and vectors (biases, batch-norm scales), 0 exempts nothing.",
        )
        self.record_trust_ratio = check_flag("record_trust_ratio", record_trust_ratio)
        for name in ("no_adaptation", "record_trust_ratio"):
            value = getattr(self, name)
            rule = f"left out of {type(self).__name__}, which has no trust ratio"
            check(self.adapts or not value, name, rule, value, "Use LARS or LAMB.")
        self._listed_paths: tuple[tuple[str, str], ...] = ()
        self._exemptions: tuple[Exemption, ...] = ()
        self._saved_state: tuple[np.ndarray[Any, Any], ...] | None = None

    def exclude_from_weight_decay(
        self, var_list: Iterable[Tensor] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Exempts tensors from weight decay, in addition to those exempt already.

        Args:
            var_list: variables, kept by path.
            var_names: regular expressions searched in `variable.path`.

        Raises:
            ValueError: the optimizer is built already, or a pattern is not valid.
        """
        patterns = self._patterns_of("exclude_from_weight_decay", var_list, var_names)
        self.no_decay = self.no_decay + patterns

    def exclude_from_layer_adaptation(
        self, var_list: Iterable[Tensor] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
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
        rows = zip(self.exemptions(), self._ratios, strict=True)
        return {row.path: float(r.numpy()) for row, r in rows if r is not None}

    def build(self, variables: Sequence[keras.Variable]) -> None:
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
        self._count_before_build = len(self.variables)
        super().build(variables)
        self._exemptions = rows
        self._build_slots(variables)
        # One scalar each, at the tensor's own place: to store it takes no kernel, no table.
        self._ratios = [
            self.add_variable(
                (),
                initializer="ones",
                dtype="float32",
                aggregation="only_first_replica",
                name="trust_ratio",
            )
            if self.record_trust_ratio and row.adapted
            else None
            for row in rows
        ]
        if self._saved_state is not None:
            state.restore(self.name, self.variables, self._saved_state, len(rows))
            self._saved_state = None

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: str | None = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> keras.Variable:
        """Adds an optimizer variable; beside a 16-bit weight it has 32 bits."""
        # Moving averages of the weights are copied back into them: those keep their dtype.
        if str(dtype) in ("float16", "bfloat16") and not str(name).endswith("_average"):
            dtype = "float32"
        return super().add_variable(shape, initializer, dtype, aggregation, layout, name)

    def apply(
        self, grads: Iterable[Tensor], trainable_variables: Iterable[Tensor] | None = None
    ) -> Tensor:
        """Updates the variables by these gradients, sparse ones made dense first."""
        grads = list(grads)
        known = self._trainable_variables if trainable_variables is None else trainable_variables
        known = list(known)
        if len(known) == len(grads):
            grads = [tensors.to_dense(g, v) for g, v in zip(grads, known, strict=True)]
        return super().apply(grads, None if trainable_variables is None else known)

    def get_config(self) -> dict[str, Any]:
        """The arguments of this optimizer, from which an equal one can be made."""
        config = {
            **super().get_config(),
            "no_decay": list(self.no_decay),
            "exclude_rank_below": self.exclude_rank_below,
            **{name: getattr(self, name) for name in self.own_options},
        }
        if self.adapts:  # the others have no such arguments
            config["no_adaptation"] = list(self.no_adaptation)
            config["record_trust_ratio"] = self.record_trust_ratio
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "LargeBatchOptimizer":
        """The optimizer of a config, also of one that still has `record_norms`, which is gone."""
        known = {name: value for name, value in config.items() if name != "record_norms"}
        optimizer: LargeBatchOptimizer = super().from_config(known, custom_objects)
        return optimizer

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Restores the state; an optimizer that is not built yet keeps it until `build`.

        Raises:
            ValueError: the state was saved for other variables.
        """
        saved = tuple(np.asarray(store[str(i)]) for i in range(len(store.keys())))
        fresh = self.built and not int(self.iterations)
        if fresh and len(saved) == self._count_before_build and not saved[0]:
            # Saved as it was compiled, before any update: what `build` has added stands at zero.
            state.restore(self.name, self.variables[: len(saved)], saved, 0)
            return
        if self.built or len(saved) == len(self.variables):
            state.restore(self.name, self.variables, saved, len(self._exemptions))
        else:
            self._saved_state = saved

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        raise NotImplementedError

    def _symbols(
        self, gradient: Tensor, variable: Tensor, learning_rate: Tensor
    ) -> tuple[int, Tensor, Tensor, Tensor]:
        """The tensor's place in `build`, and its w, g and lr in the dtype of the arithmetic."""
        dtype = tensors.compute_dtype(variable)
        w, g, lr = (ops.cast(x, dtype) for x in (variable, gradient, learning_rate))
        return self._get_variable_index(variable), w, g, lr

    def _decay_of(self, index: int) -> float:
        return self.weight_decay if self._exemptions[index].decay else 0.0

    def _record_trust_ratio(self, index: int, r: Tensor) -> None:
        if self._ratios[index] is not None:
            self.assign(self._ratios[index], ops.cast(r, "float32"))

    def _patterns_of(
        self,
        method: str,
        var_list: Iterable[Tensor] | None,
        var_names: Iterable[str] | None,
    ) -> tuple[str, ...]:
        if self.built:
            raise ValueError(
                f"`{method}` must be called before the optimizer is built. Received: built=True. "
                "Call it before `fit` or `build`, or pass the patterns to the constructor."
            )
        listed = tuple(variable_path(variable) for variable in var_list or ())
        self._listed_paths = self._listed_paths + tuple((method, path) for path in listed)
        names = check_patterns("var_names", var_names or ())
        return tuple(listed_pattern(path) for path in listed) + names

    def _check_replicas(self) -> None:
        if not tensors.on_tensorflow() or self._distribution_strategy.num_replicas_in_sync == 1:
            return
        for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
            value = getattr(self, name)
            if value:
                raise ValueError(
                    f"`{name}` must be None on several replicas, where Keras cannot compile it. "
                    f"Received: {name}={value}. Accumulate micro-batches in the training step, "
                    "and overwrite by averages between updates."
                )

    def _get_current_learning_rate(self) -> Tensor:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables: list[Tensor]) -> None:
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

    def _apply_weight_decay(self, variables: list[Tensor]) -> None:
        # Decay is part of `update_step`; the base class would add rate * decay * w outside it.
        return

    def _clip_gradients(self, grads: list[Tensor]) -> list[Tensor]:
        # The base class clips here, each replica's part for itself; see `_backend_update_step`.
        return grads

    def _change_reduced(self, grads: list[Tensor], variables: list[Tensor]) -> list[Tensor]:
        """What happens between the sum over replicas and the update of each tensor."""
        if self.clipnorm is not None:
            return tensors.clip_each(grads, self.clipnorm)
        if self.global_clipnorm is not None:
            return tensors.clip_together(grads, self.global_clipnorm)
        if self.clipvalue is not None:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        return grads

    def _backend_update_step(
        self, grads: list[Tensor], trainable_variables: list[Tensor], learning_rate: Tensor
    ) -> None:
        learning_rate = ops.convert_to_tensor(learning_rate)
        if not tensors.on_tensorflow():
            super()._backend_update_step(
                self._change_reduced(grads, trainable_variables), trainable_variables, learning_rate
            )
            return
        # The base class with one line more: `_change_reduced` between reduction and update.
        import tensorflow as tf

        variables = [v.value if isinstance(v, keras.Variable) else v for v in trainable_variables]
        pairs = self._all_reduce_sum_gradients(list(zip(grads, variables, strict=True)))
        changed = self._change_reduced([gradient for gradient, _ in pairs], variables)
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._distributed_tf_update_step,
            self._distribution_strategy,
            list(zip(changed, variables, strict=True)),
            learning_rate,
        )
