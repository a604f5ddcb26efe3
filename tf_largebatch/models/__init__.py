"""Networks and layers of the recipes. Import the module you need; this package imports nothing."""
