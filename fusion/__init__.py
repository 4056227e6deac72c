"""Fusion in pure torch: batches, nets, late rules, losses, metrics, training, bundles.

Nothing here knows Ray, files of a dataset or the network; a net can be used in a notebook with torch alone.
"""
