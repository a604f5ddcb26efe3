"""Keras's fit on several replicas and workers gives what it gives on one device."""

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.distribution.keras_fit import DistributedFit
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD

BATCH, STEPS, EPOCHS, CLASSES, FEATURES = 16, 10, 2, 5, 6  # 20 updates
EVALUATED = 449  # 28 batches of 16 and one example, which is one worker's alone

OPTIMIZERS = {
    "lars": lambda: LARS(1.0, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02),
    "lamb": lambda: LAMB(0.02, weight_decay=1e-2),
    "sgd": lambda: MomentumSGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "clipped": lambda: MomentumSGD(0.1, momentum=0.9, global_clipnorm=0.1),
}


class Net(DistributedFit, keras.Model):
    """Functional models."""


class Stack(DistributedFit, keras.Sequential):
    pass


class Subclassed(DistributedFit, keras.Model):
    """Makes its variables in the first call, and logs what Keras does not know."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.head = keras.layers.Dense(CLASSES)

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def train_step(self, data):
        logs = super().train_step(data)
        largest = tf.reduce_max(tf.math.bincount(data[1], minlength=CLASSES))
        return {**logs, "largest_class": largest, "two": tf.constant([1.0, 2.0])}


def layers(norm=False):
    middle = [keras.layers.BatchNormalization(momentum=0.8)] if norm else []
    hidden = keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(1e-3))
    return [hidden, *middle, keras.layers.Activation("tanh"), keras.layers.Dense(CLASSES)]


def make_model(kind, norm):
    if kind == "subclassed":
        return Subclassed()
    if kind == "stack":
        return Stack([keras.Input((FEATURES,)), *layers(norm)])
    inputs = outputs = keras.Input((FEATURES,))
    for layer in layers(norm):
        outputs = layer(outputs)
    return Net(inputs, outputs)


def compiled(strategy, optimizer="sgd", kind="functional", norm=False, **options):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_model(kind, norm)
        arguments = {
            "optimizer": OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer(),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }
        model.compile(**{**arguments, **options})
    return model


def examples(number, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, number).astype("int32")


def batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True)


class Seen(keras.callbacks.Callback):
    """Records what callbacks see, and the moving statistics when they see it."""

    def __init__(self):
        super().__init__()
        self.batches, self.logs, self.statistics = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)
        self.logs.append({k: np.asarray(v) for k, v in logs.items()})

    def on_epoch_end(self, epoch, logs=None):
        self.statistics.append([np.array(v) for v in self.model.non_trainable_variables])


def train(strategy, steps_per_execution=1, **case):
    model = compiled(strategy, steps_per_execution=steps_per_execution, **case)
    seen = Seen()
    x, y = examples(EVALUATED, seed=1)
    history = model.fit(
        batches(*examples(BATCH * STEPS)),
        epochs=EPOCHS,
        shuffle=False,
        validation_data=(x, y),
        validation_batch_size=BATCH,
        callbacks=[seen],
        verbose=0,
    )
    weights = np.random.default_rng(2).uniform(0.0, 2.0, EVALUATED).astype("float32")
    return {
        "updates": int(model.optimizer.iterations.numpy()),
        "weights": [np.array(v) for v in model.trainable_variables],
        "statistics": [np.array(v) for v in model.non_trainable_variables],
        "history": history.history,
        "batches": seen.batches,
        "logs": seen.logs,
        "seen_statistics": seen.statistics,
        "evaluated": model.evaluate(x, y, batch_size=BATCH, verbose=0),
        "weighted": model.evaluate(x, y, BATCH, 0, sample_weight=weights),
        "predicted": model.predict(x, batch_size=BATCH, verbose=0),
    }


CASES = {
    "lars": {"optimizer": "lars"},
    "lars, 4 a call": {"optimizer": "lars", "steps_per_execution": 4},
    "lamb": {"optimizer": "lamb", "steps_per_execution": 4},
    "sgd, stack": {"optimizer": "sgd", "kind": "stack"},
    "clipped, 4 a call": {"optimizer": "clipped", "steps_per_execution": 4},
    "subclassed": {"kind": "subclassed", "steps_per_execution": 4},
    "eager": {"run_eagerly": True, "kind": "stack", "steps_per_execution": 4},
}
NORM = {"norm": True}


def work(cases):
    """In each worker: what every case gives, by name."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return {name: train(strategy, **case) for name, case in cases.items()}
