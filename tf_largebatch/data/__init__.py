"""Data sets: what a training run needs of each, one module a kind. This file imports nothing.

Every data set is a pure function of (seed, update): the examples are one endless stream of shuffled
epochs (see `tf_largebatch.records.batching`), so any number of workers and any restart see the same
global batches, and augmentation depends on (seed, epoch, example) alone.
"""
