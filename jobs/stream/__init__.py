"""The stream that decodes and encodes: pipeline, faults, time limits, rescue, sizing."""
