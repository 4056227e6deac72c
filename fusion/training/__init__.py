"""The training loop of one net: recipe, objective, optimiser, order of the rows."""
