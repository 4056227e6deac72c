"""The synthetic corpus: faces, voices, scripts and the films made of them."""
