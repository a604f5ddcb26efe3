"""Frozen records of the parts of a recipe. Standard library only."""
