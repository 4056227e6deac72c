"""The stages and the last screen of the demo."""
