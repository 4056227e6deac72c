"""A large model behind a server as one member: its questions, its answers, and its predictions."""
