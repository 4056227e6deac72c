"""Whether everything under a root is whole: tables, runs, bundles, and what killed writers left behind."""
