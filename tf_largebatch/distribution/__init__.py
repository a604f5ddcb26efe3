"""Training in step on several devices: the strategy, one update, the loop, checkpoints."""
