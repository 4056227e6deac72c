"""Training: the input of nets, the parts of a run, the workers."""
