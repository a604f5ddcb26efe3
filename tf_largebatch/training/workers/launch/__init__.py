"""The launcher: the workers of one training on this machine, started and ended as one."""
