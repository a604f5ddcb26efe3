"""One module is one figure of a paper: many runs, a plot, a verdict."""
