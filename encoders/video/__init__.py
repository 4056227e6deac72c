"""Encoders of video."""
