"""Behind `affuse serve`: the queue and its workers, the guard at the door, the HTTP interface, the page."""

TOKEN = "AFFUSE_SERVE_TOKEN"
"""Variable of the environment that may hold the token of a server."""
