"""Modules that `python -m tf_largebatch.NAME` finds under the names of before; see `__init__`."""
