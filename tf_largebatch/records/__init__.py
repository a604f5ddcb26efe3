"""What a recipe says and what a run found: frozen records, plain files. Standard library only."""

__version__ = "0.1.0"
