"""How figures are written in tables and sentences."""

from fusion.statistics import Interval

KNOWN = {"brier": "Brier", "uar": "UAR", "nll": "NLL", "ece": "ECE", "mae": "MAE", "ccc": "CCC"}


def bounds(figure: Interval) -> tuple[float, float, float]:
    """Value, lower and upper bound."""
    return figure.value, figure.low, figure.high


def as_p(value: float) -> str:
    """A p-value in words."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def title(name: str) -> str:
    """A metric's name as a heading.

    >>> title("weighted_f1")
    'weighted F1'
    """
    return KNOWN.get(name, name.replace("_", " ").replace("f1", "F1"))
