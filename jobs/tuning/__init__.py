"""Search over nets, inputs and late fusions by Ray Tune."""
