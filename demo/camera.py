"""The camera: the sky behind, what stands in the world warped and lit, grain. Must never know streets or houses."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from demo.canvas import Floats, Sprite, levels, noise
from demo.places import LIGHTS, Light

#: 66 degrees across, like a phone's main camera (26 mm equivalent).
FIELD_OF_VIEW = math.radians(66)
#: The horizon lies this far down the picture (a shifted lens): walls stay upright and roofs in view.
HORIZON = 0.66
_LAMP_GLOW = (255, 205, 125, 255)


@dataclass(frozen=True)
class Quad:
    """A sprite hung in the world: its top left corner, and which way its pixels run (unit vectors).

    World metres: x right along the street, y away from the camera, z up; facades stand at y = 0.
    side: -1 or 1 for a wall that faces left or right along the street, 0 for what faces the camera.
    """

    sprite: Sprite
    corner: tuple[float, float, float]
    right: tuple[float, float, float] = (1.0, 0.0, 0.0)
    down: tuple[float, float, float] = (0.0, 0.0, -1.0)
    side: int = 0


@dataclass(frozen=True)
class Camera:
    """An upright pinhole camera. `matrix` [3, 3] takes metres from the eye to homogeneous pixels."""

    eye: Floats
    matrix: Floats
    size: tuple[int, int]

    @classmethod
    def at(cls, eye: tuple[float, float, float], yaw_deg: float, size: tuple[int, int]) -> "Camera":
        """eye: world metres, as in `Quad`. yaw_deg: turned right of straight on. size: width, height in pixels."""
        width, height = size
        focal, yaw = width / 2 / math.tan(FIELD_OF_VIEW / 2), math.radians(yaw_deg)
        lens = np.array([[focal, 0, width / 2], [0, focal, height * HORIZON], [0, 0, 1]])
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [0, 0, -1], [math.sin(yaw), math.cos(yaw), 0]])
        return cls(np.array(eye), lens @ turn, size)

    def pixel(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Picture x, y and the depth in metres of a world point."""
        x, y, depth = self.matrix @ (np.array(point) - self.eye)
        return float(x / depth), float(y / depth), float(depth)

    def paint(self, picture: Image.Image, quad: Quad, light: Light) -> None:
        """Warp the quad onto the picture, its plane being one homography away, and light what shows of it."""
        if quad.side * (self.eye[0] - quad.corner[0]) < 0:
            return
        axes = [
            np.array(quad.right) / quad.sprite.px,
            np.array(quad.down) / quad.sprite.px,
            np.array(quad.corner) - self.eye,
        ]
        forward = self.matrix @ np.stack(axes, axis=1)
        box = self._bounds(forward, quad.sprite.paint.size)
        if box is None:
            return
        left, top, right, bottom = box
        back = np.linalg.inv(forward) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        coefficients = (back / back[2, 2]).ravel()[:8].tolist()

        def warp(image: Image.Image) -> Image.Image:
            frame = (right - left, bottom - top)
            return image.transform(frame, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)

        patch = warp(quad.sprite.paint).point(levels((*(light.side if quad.side else light.front), 1.0)))
        if light.lamps:
            patch.paste(_LAMP_GLOW, (0, 0), warp(quad.sprite.glow).point(levels((light.lamps,))))
        picture.paste(patch, (left, top), patch)

    def _bounds(self, forward: Floats, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """The part of the picture that the quad can touch: left, top, right, bottom; None if unseen."""
        rim = np.linspace(0.0, 1.0, 33)
        s, t = (grid.ravel() for grid in np.meshgrid(rim * size[0], rim * size[1]))
        x, y, depth = forward @ np.stack([s, t, np.ones_like(s)])
        ahead = depth > 0.5
        if not ahead.any():
            return None
        x, y = x[ahead] / depth[ahead], y[ahead] / depth[ahead]
        # 2 px of room, and more where the rim is cut off behind the camera.
        room = 2 if ahead.all() else self.size[0]
        left, right = max(0, int(x.min()) - room), min(self.size[0], int(x.max()) + room)
        top, bottom = max(0, int(y.min()) - 2), min(self.size[1], int(y.max()) + 2 + room)
        return (left, top, right, bottom) if left < right and top < bottom else None


@lru_cache(maxsize=64)
def sky(size: tuple[int, int], light_name: str) -> Image.Image:
    """A gradient down to the horizon, with clouds. The same over every place: it must not tell them apart."""
    light, (width, height) = LIGHTS[light_name], size
    down = np.clip(np.linspace(0, 1 / HORIZON, height), 0, 1)[:, None, None] ** 0.8
    clear = np.array(light.sky_top) * (1 - down) + np.array(light.sky_low) * down
    puffs = noise(size, width / 3, np.random.default_rng(list(LIGHTS).index(light_name)))
    cover = np.clip(puffs * 0.5 + light.clouds - 0.45, 0, 1)[..., None] * 0.75
    bright = np.minimum(np.array(light.sky_low) * 1.08, 255)
    return Image.fromarray((clear * (1 - cover) + bright * cover).astype(np.uint8))


def develop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What a small camera adds: darker corners and grain."""
    pixels = np.asarray(picture, dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    vignette = (1 - 0.10 * (x**2 + y**2)).astype(np.float32)[..., None]
    grain = rng.normal(0, 3.0, pixels.shape[:2]).astype(np.float32)[..., None]
    return Image.fromarray(np.clip(pixels * vignette + grain, 0, 255).astype(np.uint8))
