"""One small training by the engine and by `fit`, with the same batches in the same parts.

Imported by the tests and, in a process of its own, by each of their workers.
"""

import dataclasses
import functools

import numpy as np

EXAMPLES, EVALUATED, FEATURES, CLASSES, BATCH, EPOCHS = 320, 53, 6, 5, 32, 2  # 20 updates


@dataclasses.dataclass(frozen=True)
class Case:
    """What is switched on, besides the strategy in whose scope it runs."""

    feature: str = "plain"
    precision: str = "float32"
    micro_batch: int | None = None
    scored: bool = False  # by `evaluate` and `predict` too


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, EXAMPLES).astype("int32")


def example_weights(labels):
    """What each example counts: by its place and, for class weights, by its class."""
    return np.linspace(0.0, 2.0, len(labels), dtype="float32")


CLASS_WEIGHTS = {k: 0.5 + 0.25 * k for k in range(CLASSES)}
SECOND = 0.25  # weight of the second output's loss


def make_optimizer(feature):
    import keras

    from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD

    match feature:
        case "lars" | "ghost" | "joined":
            return LARS(1.0, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02)
        case "lamb":
            return LAMB(0.02, weight_decay=1e-2)
        case "keras, clipped":
            return keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.1)
        case "clipped each":
            return MomentumSGD(0.1, momentum=0.9, clipnorm=0.05)
        case "averaged":
            return MomentumSGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.8)
    return MomentumSGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)


def make_outputs(feature):
    """The model's input and its outputs, logits; the same layers for the engine and for `fit`."""
    import keras

    from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
    from tf_largebatch.models.stream_dropout import StreamDropout

    inputs = keras.Input((FEATURES,))
    x = keras.layers.Dense(8)(inputs)
    match feature:
        case "norm":
            x = keras.layers.BatchNormalization(momentum=0.8)(x)
        case "synchronized":
            x = keras.layers.BatchNormalization(momentum=0.8, synchronized=True)(x)
        case "ghost":
            x = GhostBatchNormalization(4, momentum=0.8)(x)
        case "joined":
            x = GhostBatchNormalization(replica_group=None, momentum=0.8)(x)
    x = keras.layers.Activation("tanh")(x)
    if feature == "dropout":
        x = keras.layers.Dropout(0.3)(x)
        x = StreamDropout(0.3, seed=5)(x)
    outputs = [keras.layers.Dense(CLASSES, name="head")(x)]
    if feature == "two outputs":
        outputs.append(keras.layers.Dense(CLASSES, name="second")(x))
    return inputs, outputs


def dataset(*tensors):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tensors).batch(BATCH, drop_remainder=True)


def by_engine(strategy, case):
    """Weights and statistics that the recipes' loop ends with."""
    import keras
    import tensorflow as tf

    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.training.build import dtype_policy
    from tf_largebatch.training.step import COLUMNS, TrainingStep

    x, labels = data()
    # Labels and what each example counts, in one tensor: the engine's loss sees nothing else.
    counts = np.ones(len(labels), "float32")
    if case.feature == "sample weights":
        counts = example_weights(labels)
    elif case.feature == "class weights":
        counts = np.array([CLASS_WEIGHTS[k] for k in labels], "float32")

    def loss(packed, logits):
        truth = tf.cast(packed[:, 0], tf.int32)
        parts = tf.split(logits, logits.shape[1] // CLASSES, axis=1)
        losses = [tf.nn.sparse_softmax_cross_entropy_with_logits(truth, z) for z in parts]
        return packed[:, 1] * (losses[0] + SECOND * sum(losses[1:]))

    keras.utils.set_random_seed(1)
    with strategy.scope():
        with dtype_policy(case.precision):
            inputs, outputs = make_outputs(case.feature)
            model = keras.Model(
                inputs, outputs[0] if len(outputs) == 1 else keras.layers.Concatenate()(outputs)
            )
        step = TrainingStep(
            model,
            make_optimizer(case.feature),
            loss=loss,
            plan=BatchPlan(
                global_batch=BATCH,
                train_examples=EXAMPLES,
                replicas=strategy.num_replicas_in_sync,
                micro_batch=case.micro_batch,
            ),
            strategy=strategy,
            scale_loss=case.precision == "float16",
            seed=1,
        )
    packed = np.stack([labels.astype("float32"), counts], axis=1)
    batches = strategy.experimental_distribute_dataset(dataset(x, packed).repeat())
    before = state_of(model)["weights"]
    rows = step.run(iter(batches), tf.constant(EPOCHS * EXAMPLES // BATCH)).numpy()
    step.optimizer.finalize_variable_values(model.trainable_variables)
    losses = rows[:, COLUMNS.index("loss")].reshape(EPOCHS, -1)
    return {**state_of(model), "before": before, "losses": losses.mean(axis=1)}


def by_fit(strategy, case):
    """The same, and what `fit`, `evaluate` and `predict` say."""
    import keras

    from tf_largebatch.training.build import dtype_policy

    keras.utils.set_random_seed(1)
    two = case.feature == "two outputs"
    with strategy.scope():
        with dtype_policy(case.precision):
            model = make_class()(*make_outputs(case.feature))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            optimizer=make_optimizer(case.feature),
            loss=[loss, loss] if two else loss,
            loss_weights=[1.0, SECOND] if two else None,
            metrics=[["accuracy"], []] if two else ["accuracy"],
            steps_per_execution=4 if case.feature == "4 a call" else 1,
            jit_compile=case.feature == "compiled",
        )
    x, labels = data()
    tensors = [x, (labels, labels) if two else labels]
    if case.feature == "sample weights":
        tensors.append(example_weights(labels))
    history = model.fit(
        dataset(*tensors),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        micro_batch=case.micro_batch,
        class_weight=CLASS_WEIGHTS if case.feature == "class weights" else None,
    )
    result = {
        **state_of(model),
        "updates": int(model.optimizer.iterations.numpy()),
        "losses": history.history["loss"],
    }
    if case.scored:
        x, labels = x[:EVALUATED], labels[:EVALUATED]
        truth = (labels, labels) if two else labels
        result["scores"] = model.evaluate(x, truth, 16, 0, return_dict=True)
        predicted = model.predict(x, 16, 0)
        result["predicted"] = predicted if two else [predicted]
        result["labels"] = labels
    return result


@functools.cache
def make_class():
    import keras

    from tf_largebatch.training.keras_fit import DistributedFit

    class Net(DistributedFit, keras.Model):
        pass

    return Net


def state_of(model):
    state = [v for v in model.non_trainable_variables if "seed" not in v.path]
    return {
        "weights": [np.array(v) for v in model.trainable_variables],
        "statistics": [np.array(v) for v in state],
    }


def both(cases):
    """In each worker: what both give of every case."""
    from tf_largebatch.training.workers.strategy import make_strategy

    strategy = make_strategy()
    return {case: (by_engine(strategy, case), by_fit(strategy, case)) for case in cases}
