"""Preparation of ImageNet: `python -m tf_largebatch prepare SOURCE --out DIR` writes shards.

DIR then opens with `tf_largebatch.data.imagenet.open_folder`. Which picture goes where depends on
class and file name alone, so every layout, any number of processes and an interrupted run give the
same bytes. Importing this package costs nothing.
"""
