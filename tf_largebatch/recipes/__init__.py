"""What is run: one module states one row, or one table, of a paper, every number with its source.

    python -m tf_largebatch.recipes.NAME --data DIR  # the paper's run, on ImageNet in DIR
    python -m tf_largebatch.recipes.NAME             # its miniature, in minutes, without data
    python -m tf_largebatch.recipes.NAME --plan      # every number, without TensorFlow

`python -m tf_largebatch` lists them.
"""
