"""One module is one row of one published table. `python -m tf_largebatch` lists them."""
