"""The validation error of a run, as it stands."""

import keras
import tensorflow as tf

from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.evaluation import EvaluationStep, Scores, pad_to_multiple
from tf_largebatch.training.run import Run
from tf_largebatch.training.statistics import StatisticsStep
from tf_largebatch.training.unreadable import READ_ERRORS


class Validation:
    """Scores a run's model on the whole evaluation set.

    Where the recipe says so, it first takes the batch-norm statistics afresh, from the training
    images that `progress` says were used last.
    """

    def __init__(self, run: Run, model: keras.Model, progress: Progress):
        self._run, self._progress = run, progress
        dataset, replicas = run.dataset, run.plan.batch.replicas
        self._step = EvaluationStep(model, run.team.strategy)
        self._batches = 0

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = replicas // context.num_input_pipelines
            share = dataset.eval_batches(
                min(dataset.eval_batch, dataset.eval_examples),
                worker=context.input_pipeline_id,
                workers=context.num_input_pipelines,
            )
            per_worker = int(share.cardinality())
            self._batches = -(-per_worker // local)
            return pad_to_multiple(share, per_worker, local)

        self._dataset = run.team.strategy.distribute_datasets_from_function(make)
        self._recompute = None
        if run.plan.recipe.model.bn_recompute_images:
            # The first phase's batch in every phase: what matters is how many images a group has.
            self._recompute = StatisticsStep(model, plan=run.plan.batch, strategy=run.team.strategy)

    def __call__(self) -> Scores:
        """Scores the model as it stands; InputError where an image cannot be read."""
        dataset = self._run.dataset
        if self._recompute:
            plan = self._run.plan.batch
            number = -(-self._run.plan.recipe.model.bn_recompute_images // plan.global_batch)
            first = max(self._progress.update - number, 0)
            self._recompute(self._run.batches(plan, first), number=number)
        batches, examples = iter(self._dataset), dataset.eval_examples
        try:
            return self._step(batches, batches=self._batches, examples=examples)
        except READ_ERRORS as error:
            raise dataset.explain_eval_failure(error) or error from None
