"""What Python calls (`affuse.py`): clips in paths or frames, an opened bundle, features as frames."""
