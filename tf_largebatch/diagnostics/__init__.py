"""Instruments that tell whether a larger batch would still help: functions of a model and data."""
