"""Hand-written recurrences and attention: faster twins of plain loops."""
