"""The trained network, saved for use."""

import dataclasses

import keras

from tf_largebatch.training.build import make_model
from tf_largebatch.training.run import Run

MODEL = "model.keras"


def export(model: keras.Model, run: Run) -> None:
    """Saves the network, whole or not at all: raw pixels in, logits out, float32.

    Its batch norms are Keras's own, which infer the same, so that `keras.saving.load_model` needs
    nothing of this package; the optimizer's state is in the checkpoints.
    """
    recipe = run.plan.recipe
    plain = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, bn_batch=None))
    exported = make_model(plain, run.dataset, run.seed)
    exported.set_weights(model.get_weights())
    # Keras decides the format by the suffix, so the unfinished file needs the same one.
    part = run.folder / f"part-{MODEL}"
    exported.save(part)
    part.replace(run.folder / MODEL)
