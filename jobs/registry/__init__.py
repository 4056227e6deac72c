"""Bundles handed on: their cards, MLflow's model registry, folders for a model hub."""
