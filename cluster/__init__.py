"""Cluster glue: table contracts, storage, sessions, resource plans, tracking, submission."""
