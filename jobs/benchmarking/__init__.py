"""Rates of the stream, and the plain script they are compared with."""
