"""Side columns in which an encoder itself says what it takes a clip for."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OwnAnswer:
    """What a side column says: how probable each of some classes is, or one value between two bounds."""

    classes: tuple[str, ...] = ()
    """Of the column, in order; empty: it is a value."""

    range: tuple[float, float] | None = None
    """Bounds of a value, which is named as its column is (arousal, dominance, valence)."""

    def __post_init__(self) -> None:
        if bool(self.classes) == (self.range is not None):
            raise ValueError("an answer has classes, or else a range")
