"""From the rows of an adapter to a manifest: groups, splits, folds."""
