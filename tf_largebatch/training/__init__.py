"""How a recipe is trained. Import the module you need; this package imports nothing."""
