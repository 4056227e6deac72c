"""The report: evidence, sections, plots, page."""
