"""From what an adapter collected to a manifest: groups, splits, folds."""
