"""Networks and layers of the recipes; `network.make_network` makes one. Imports nothing."""
