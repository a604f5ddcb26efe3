"""The launcher: the workers of one training job on this machine, started and ended as one.

`python -m tf_largebatch.launch`. Standard library only.
"""
