"""The stream of decode and encode: whose fault an error is, what may take how long, the way to its end."""
