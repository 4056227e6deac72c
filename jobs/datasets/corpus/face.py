"""A softly shaded painted face, in NumPy: no picture of a real person is needed or used.

A flat cartoon is found by a face detector but fails the mesh's presence check; highlights, a cheek shadow,
eye sockets, a nose shadow, slight blur and noise make the same drawing pass. A face is a Look (whose it is)
in an Expression (how it feels); expressions add up, so that a weaker one is a blend with the neutral one.

Coordinates: the head's centre is (0, 0), x to the right, y down, 1 is half the side of the picture.

Shapes: height, width (both `SIZE`), 3 colours in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

SIZE = 256
"""Side of a frame [px]."""

MARGIN = 12
"""The scene is painted this much larger on every side, so that the head can move [px]."""

RESTING_CORNER = 0.006
"""Corners of the mouth at rest, above its middle."""

RESTING_BROW = -0.25
"""Height of the brows at rest."""

RESTING_EYE = 0.024
"""Half height of an open eye at rest."""

Image = NDArray[np.float32]
Colour = tuple[float, float, float]
Curve = Callable[[Image], Image]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Features of one person's face."""

    skin: Colour = (0.86, 0.67, 0.56)
    hair: Colour = (0.20, 0.13, 0.09)
    iris: Colour = (0.30, 0.22, 0.14)
    wall: Colour = (0.45, 0.50, 0.55)
    shirt: Colour = (0.25, 0.30, 0.42)
    width: float = 0.47
    """Half width of the head."""
    height: float = 0.62
    """Half height of the head."""
    eye_gap: float = 0.20
    """Half the distance of the eyes."""
    brow_weight: float = 1.0
    """Thickness of the brows, 1 is medium."""
    lip_fullness: float = 1.0
    """Thickness of the lips, 1 is medium."""
    long_hair: bool = False
    fringe: float = 0.0
    """How far the hair comes down the forehead."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Expression of a face: offsets from the resting face, in units of the picture."""

    brow_raise: float = 0.0
    """Brows up."""
    brow_frown: float = 0.0
    """Inner ends of the brows down and together."""
    brow_arch: float = 0.0
    """Middle of the brows up."""
    eye_open: float = 0.0
    """Eyelids apart, beyond the resting RESTING_EYE."""
    cheek: float = 0.0
    """Cheeks lifted: the fold from the nose to the mouth shows [0..1]."""
    corner: float = 0.0
    """Corners of the mouth up."""
    mouth_wide: float = 0.0
    """Half width of the mouth, beyond the resting 0.15."""
    mouth_open: float = 0.0
    """Lips apart."""
    teeth: float = 0.0
    """Upper teeth show [0..1]."""

    def scaled(self, share: float) -> "Expression":
        """The same expression, weaker or stronger."""
        return Expression(**{f.name: share * getattr(self, f.name) for f in fields(self)})

    def __add__(self, other: "Expression") -> "Expression":
        return Expression(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


EXPRESSIONS: dict[str, Expression] = {
    "neutral": Expression(),
    "happy": Expression(
        corner=0.085, mouth_wide=0.075, mouth_open=0.055, teeth=1.0, cheek=1.0, eye_open=0.0,
        brow_arch=0.01,
    ),
    "angry": Expression(
        brow_frown=0.085, brow_raise=-0.05, eye_open=0.0, corner=-0.05, mouth_wide=-0.01, cheek=0.35,
    ),
    "surprised": Expression(
        brow_raise=0.085, brow_arch=0.03, eye_open=0.054, mouth_open=0.16, mouth_wide=-0.065,
    ),
}  # fmt: skip


def paint(look: Look, expression: Expression) -> Image:
    """One picture of a face, with the margin around it: [SIZE + 2 MARGIN, SIZE + 2 MARGIN, 3]."""
    scene = _Scene(look.wall)
    _body(scene, look)
    _head(scene, look)
    for side in (-1.0, 1.0):
        _eye(scene, look, expression, side)
        _brow(scene, look, expression, side)
    _nose_and_folds(scene, look, expression)
    _mouth(scene, look, expression)
    _front_hair(scene, look)
    return _blurred(scene.image)


def photograph(
    scene: Image, *, dx: float, dy: float, light: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A frame of a painted scene: shifted by (dx, dy) px, lit, with sensor noise.

    Returns:
        [SIZE, SIZE, 3] uint8.
    """
    x, y = MARGIN + round(dx), MARGIN + round(dy)
    # One grey noise pattern, moved anew per frame: as good as a fresh one, at a tenth of the cost.
    top, left = rng.integers(0, SIZE, 2)
    noise = _NOISE[top : top + SIZE, left : left + SIZE, None]
    frame = scene[y : y + SIZE, x : x + SIZE] * np.float32(255 * light) + noise
    return np.asarray(np.clip(frame, 0, 255), np.uint8)


_NOISE = np.random.default_rng(7).normal(0, 3, (2 * SIZE, 2 * SIZE)).astype(np.float32)


def _blurred(image: Image) -> Image:
    """A binomial blur of three pixels, as a lens would."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16, np.float32)


class _Scene:
    """A canvas and the few brushes that a face needs; every edge is soft."""

    def __init__(self, wall: Colour) -> None:
        axis = (np.arange(SIZE + 2 * MARGIN, dtype=np.float32) - MARGIN + 0.5) / (SIZE / 2) - 1
        self.x = axis[None, :]
        self.y = axis[:, None]
        shade = 1 - 0.18 * self.y - 0.10 * self.x
        self.image: Image = (shade[..., None] * np.array(wall, np.float32)).astype(np.float32)

    def blob(
        self, at: tuple[float, float], size: tuple[float, float], colour: Colour, *,
        alpha: float = 1.0, edge: float = 0.02, power: float = 2.0,
    ) -> None:  # fmt: skip
        """A filled super-ellipse; `edge` is the width of its rim."""
        rows, columns = self._window(at, (size[0] + 2 * edge, size[1] + 2 * edge))
        u = np.abs((self.x[:, columns] - at[0]) / size[0])
        v = np.abs((self.y[rows] - at[1]) / size[1])
        radius = (u**power + v**power) ** (1 / power)
        self._blend(rows, columns, _rim((1 - radius) * min(size), edge) * alpha, colour)

    def glow(
        self, at: tuple[float, float], size: tuple[float, float], colour: Colour, alpha: float
    ) -> None:
        """A Gaussian spot of light or shadow."""
        rows, columns = self._window(at, (2.6 * size[0], 2.6 * size[1]))
        u = (self.x[:, columns] - at[0]) / size[0]
        v = (self.y[rows] - at[1]) / size[1]
        self._blend(rows, columns, np.asarray(alpha * np.exp(-(u**2 + v**2)), np.float32), colour)

    def band(
        self, left: float, right: float, middle: Curve, thickness: Curve, colour: Colour, *,
        alpha: float = 1.0, edge: float = 0.012,
    ) -> None:  # fmt: skip
        """A stroke from x = left to right around y = middle(t), t in [-1, 1], half as thick as said."""
        centre, half = (left + right) / 2, (right - left) / 2
        t = (self.x - centre) / half
        inside = np.clip(t, -1, 1)
        distance = thickness(inside) / 2 - np.abs(self.y - middle(inside))
        ends = (1 - np.abs(t)) * half
        mask = _rim(np.minimum(distance, ends + edge), edge)
        self._blend(slice(None), slice(None), mask * alpha, colour)

    def _window(self, at: tuple[float, float], size: tuple[float, float]) -> tuple[slice, slice]:
        def span(centre: float, half: float) -> slice:
            low = (centre - half + 1) * SIZE / 2 + MARGIN
            high = (centre + half + 1) * SIZE / 2 + MARGIN
            limit = SIZE + 2 * MARGIN
            return slice(max(0, int(low) - 1), min(limit, int(high) + 2))

        return span(at[1], size[1]), span(at[0], size[0])

    def _blend(self, rows: slice, columns: slice, mask: Image, colour: Colour) -> None:
        part = self.image[rows, columns]
        part += mask[..., None].astype(np.float32) * (np.array(colour, np.float32) - part)


def _rim(distance: Image, edge: float) -> Image:
    """1 inside, 0 outside, a smooth step of width `edge` between."""
    t = np.clip(distance / edge + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    a, b, c = (x + share * (y - x) for x, y in zip(one, other, strict=True))
    return (a, b, c)


def _times(colour: Colour, factor: float) -> Colour:
    a, b, c = (min(1.0, factor * x) for x in colour)
    return (a, b, c)


def _body(scene: _Scene, look: Look) -> None:
    if look.long_hair:
        scene.blob((0, 0.12), (look.width * 1.30, look.height * 1.28), look.hair, power=2.6)
    scene.blob((0, 1.25), (0.85, 0.50), look.shirt, edge=0.03, power=2.5)
    scene.blob((0, 0.72), (0.22, 0.34), _times(look.skin, 0.82), edge=0.03, power=2.6)
    scene.glow((0, 0.66), (0.22, 0.10), _times(look.skin, 0.40), 0.55)


def _head(scene: _Scene, look: Look) -> None:
    w, h, skin = look.width, look.height, look.skin
    scene.blob((0, -0.14), (w * 1.10, h * 0.98), look.hair, edge=0.03)
    for side in (-1.0, 1.0):
        scene.blob((side * w * 1.0, 0.02), (0.06, 0.13), _times(skin, 0.86), edge=0.02)
    scene.blob((0, 0.03), (w, h), skin, edge=0.03, power=2.3)
    scene.glow((0, -0.32), (0.24, 0.14), _mix(skin, (1, 1, 1), 0.5), 0.45)  # forehead
    for side in (-1.0, 1.0):
        scene.glow((side * w * 0.86, 0.18), (0.09, 0.34), _times(skin, 0.45), 0.50)  # cheek shadow
        scene.glow((side * 0.24, 0.16), (0.12, 0.09), _mix(skin, (1, 0.55, 0.5), 0.5), 0.35)
        scene.glow((side * 0.22, 0.10), (0.09, 0.06), _mix(skin, (1, 1, 1), 0.5), 0.30)
    scene.glow((0, h * 0.92), (0.20, 0.09), _mix(skin, (1, 1, 1), 0.4), 0.22)  # chin


def _eye(scene: _Scene, look: Look, expression: Expression, side: float) -> None:
    x, y = side * look.eye_gap, -0.10
    opening = max(0.004, RESTING_EYE + expression.eye_open)
    scene.glow((x, y - 0.01), (0.13, 0.085), _times(look.skin, 0.45), 0.60)  # socket
    scene.blob((x, y), (0.098, opening + 0.014), _times(look.skin, 0.42), edge=0.016, alpha=0.8)
    scene.blob((x, y), (0.088, opening), (0.84, 0.82, 0.80), edge=0.014)
    iris = min(0.043, opening * 1.05)
    scene.blob((x, y), (0.043, iris), look.iris, edge=0.012)
    scene.blob((x, y), (0.020, min(0.020, opening)), (0.03, 0.02, 0.02), edge=0.010)
    if opening > 0.02:
        scene.blob((x + 0.014, y - 0.014), (0.009, 0.009), (1, 1, 1), edge=0.01, alpha=0.9)
    lid = look.eye_gap
    scene.band(
        side * lid - 0.105, side * lid + 0.105,
        lambda t: y - opening * (1 - t**2) - 0.003, lambda t: 0.020 * (1.1 - t**2),
        (0.10, 0.06, 0.05), alpha=0.85,
    )  # fmt: skip
    if expression.cheek > 0.5:
        scene.glow((x, y + 0.085), (0.09, 0.022), _times(look.skin, 0.55), 0.45)


def _brow(scene: _Scene, look: Look, expression: Expression, side: float) -> None:
    inner = look.eye_gap - 0.115 - 0.25 * expression.brow_frown
    outer = look.eye_gap + 0.135
    y = RESTING_BROW - expression.brow_raise

    def middle(t: Image) -> Image:
        to_inner = (1 - t * side) / 2
        arch = (0.022 + expression.brow_arch) * (1 - t**2)
        return np.asarray(y - arch + expression.brow_frown * (1.5 * to_inner - 0.4), np.float32)

    def thickness(t: Image) -> Image:
        tapered = 0.45 + 0.55 * (1 - t * side) / 2
        return np.asarray(look.brow_weight * 0.048 * tapered, np.float32)

    left, right = sorted((side * inner, side * outer))
    scene.band(left, right, middle, thickness, _times(look.hair, 0.75), alpha=0.9, edge=0.018)
    if expression.brow_frown > 0.03:
        scene.glow((side * 0.030, -0.19), (0.012, 0.06), _times(look.skin, 0.42), 0.7)


def _nose_and_folds(scene: _Scene, look: Look, expression: Expression) -> None:
    dark, light = _times(look.skin, 0.50), _mix(look.skin, (1, 1, 1), 0.55)
    scene.glow((0.0, 0.02), (0.030, 0.17), light, 0.45)
    for side in (-1.0, 1.0):
        scene.glow((side * 0.075, 0.03), (0.035, 0.15), dark, 0.32)
        scene.glow((side * 0.085, 0.165), (0.035, 0.035), dark, 0.50)
        scene.glow((side * 0.042, 0.200), (0.026, 0.014), _times(look.skin, 0.25), 0.85)
        for step in range(5 if expression.cheek > 0 else 0):  # the fold, as a row of soft spots
            share = step / 4
            at = (side * (0.115 + 0.125 * share**1.4), 0.175 + 0.155 * share)
            scene.glow(at, (0.020, 0.028), dark, 0.30 * expression.cheek)
    scene.glow((0, 0.155), (0.045, 0.040), light, 0.55)
    scene.glow((0, 0.225), (0.075, 0.022), dark, 0.55)
    scene.glow((0, 0.285), (0.025, 0.035), dark, 0.25)


def _mouth(scene: _Scene, look: Look, expression: Expression) -> None:
    half, gap = 0.15 + expression.mouth_wide, max(0.0, expression.mouth_open)
    y = 0.375 + 0.35 * gap - 0.5 * expression.corner
    full = 0.038 * look.lip_fullness
    red = _mix(_times(look.skin, 0.72), (0.68, 0.22, 0.24), 0.55)

    def bow(t: Image) -> Image:
        lift = expression.corner + RESTING_CORNER
        return np.asarray(y + lift * (1 - 2 * t**2) * 0.9, np.float32)

    def lens(t: Image) -> Image:
        return np.asarray(np.sqrt(np.clip(1 - t**2, 0, 1)), np.float32)

    scene.glow((0, y + 0.5 * gap + 0.10), (0.15, 0.030), _times(look.skin, 0.55), 0.40)
    scene.band(-half, half, bow, lambda t: (gap + 2 * full) * lens(t), red, alpha=0.92, edge=0.02)
    scene.band(-half, half, bow, lambda t: gap * lens(t) + 0.014, (0.16, 0.05, 0.06), edge=0.012)
    if expression.teeth > 0 and gap > 0:
        scene.band(
            -half * 0.86, half * 0.86, lambda t: bow(t) - 0.10 * gap * lens(t),
            lambda t: 0.72 * gap * lens(t), (0.94, 0.92, 0.88),
            alpha=min(1.0, expression.teeth), edge=0.012,
        )  # fmt: skip
    scene.glow((0, y + 0.5 * gap + 0.6 * full), (0.07, 0.012), _mix(red, (1, 1, 1), 0.5), 0.45)


def _front_hair(scene: _Scene, look: Look) -> None:
    top = -look.height + 0.03
    scene.blob((0.0, top + 0.02), (look.width * 0.80, 0.12 + look.fringe), look.hair, edge=0.05)
    scene.glow((0.12, top - 0.04), (0.18, 0.05), _mix(look.hair, (1, 1, 1), 0.35), 0.35)
