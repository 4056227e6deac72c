"""Behind `affuse score`: reading stored features in spans, and the folder where many files are worked on."""
