"""Feature tables ranked on the labels of a dataset: for `benchmark encoders`."""
