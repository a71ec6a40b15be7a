"""One module per Invoke namespace: options in, an answer out; the work is done elsewhere."""
