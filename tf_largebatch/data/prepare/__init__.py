"""Preparation of ImageNet: TFRecord shards from what people have of ILSVRC 2012.

    python -m tf_largebatch prepare SOURCE --out DIR

SOURCE is the folder of the two tar files, an ImageFolder tree, Kaggle's layout or a folder of
TensorFlow Datasets. DIR then opens with `tf_largebatch.data.imagenet.open_folder`.

Which picture goes where depends on class and file name alone, so every layout, any number of
processes and an interrupted run give the same bytes. Importing this package costs nothing.
"""
