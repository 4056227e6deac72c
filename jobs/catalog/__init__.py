"""Where everything lies under a root, and whether it is all there."""
