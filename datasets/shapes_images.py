"""Draws images of overlapping shapes, and their label masks.

A class is a shape. Its colour is a hint, no more: hues of neighbouring classes
overlap, and textures are anybody's, so that a network has to look at outlines
as well. Objects hide one another, leave the image, and are lit unevenly; lines
and specks that belong to no class lie about.
"""

import colorsys
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

CLASS_NAMES = (
  'background',
  'disc',
  'square',
  'triangle',
  'star',
  'ring',
  'cross',
)
IGNORE_LABEL = 255

# Shapes are drawn so many times larger and averaged down.
_OVERSAMPLING = 4

# Pixels around an object that its colour is chosen against.
_SURROUNDINGS = 6


@dataclasses.dataclass(frozen=True)
class Options:
  """How hard the images are. Pairs are the ends of uniform distributions.

  Attributes:
    height: of the image in pixels.
    width: of the image in pixels.
    num_objects: number of objects that are tried.
    radius: of an object, as a share of the image's shorter side.
    aspect: ratio of an object's axes.
    min_visible: an object is left out if it would leave less than this share
      of one below it to be seen.
    min_contrast: distance of the mean colours of an object and of what is
      around it, in grey levels.
    hue_spread: how far the hue of an object may lie from that of its class,
      in turns of the colour wheel; classes are 1/6 apart, and 0.5 makes the
      colour tell nothing.
    background_saturation: of the background's mean colour, in 0..1; objects
      have 0.5 to 1.
    texture: amplitude of textures in grey levels.
    border: width in pixels of the ignored band on outlines.
    num_lines: number of lines of no class, half of them below the objects.
    num_specks: number of specks of no class.
    light: strength of uneven lighting.
    noise: standard deviation of the noise in grey levels.
  """

  height: int = 128
  width: int = 160
  num_objects: tuple[int, int] = (2, 6)
  radius: tuple[float, float] = (0.14, 0.3)
  aspect: tuple[float, float] = (0.8, 1.25)
  min_visible: float = 0.35
  min_contrast: float = 40.0
  hue_spread: float = 0.09
  background_saturation: tuple[float, float] = (0.0, 0.4)
  texture: tuple[float, float] = (5.0, 30.0)
  border: int = 3
  num_lines: tuple[int, int] = (0, 4)
  num_specks: tuple[int, int] = (0, 8)
  light: float = 0.35
  noise: tuple[float, float] = (1.0, 8.0)


# Textures: float32 [height, width], mean about 0, values about -1..1.


def _waves(rng, height, width):
  """Stripes, straight or wavy."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  angle = rng.uniform(0, math.pi)
  along = x * math.cos(angle) + y * math.sin(angle)
  across = y * math.cos(angle) - x * math.sin(angle)
  period = rng.uniform(5, 24)
  bend = rng.uniform(0.2, 1.5) if rng.random() < 0.5 else 0.0
  wave = np.sin(
    2 * math.pi * along / period + bend * np.sin(across / rng.uniform(4, 16))
  )
  return np.sign(wave) * 0.8 if rng.random() < 0.3 else wave


def _checks(rng, height, width):
  """A turned chessboard."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  angle = rng.uniform(0, math.pi / 2)
  size = rng.uniform(4, 14)
  u = np.floor((x * math.cos(angle) + y * math.sin(angle)) / size)
  v = np.floor((y * math.cos(angle) - x * math.sin(angle)) / size)
  return np.float32(0.8) * (2 * ((u + v) % 2) - 1)


def _clouds(rng, height, width):
  """Noise of one grain, coarse or fine."""
  grain = rng.uniform(2, 24)
  shape = int(height / grain) + 2, int(width / grain) + 2
  small = Image.fromarray(rng.uniform(-1.4, 1.4, shape).astype(np.float32))
  return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _slope(rng, height, width):
  """A gradient."""
  y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
  angle = rng.uniform(0, 2 * math.pi)
  return (x * math.cos(angle) + y * math.sin(angle)).astype(np.float32)


def _dots(rng, height, width):
  """A field of dots."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  period = rng.uniform(6, 18)
  angle = rng.uniform(0, math.pi / 2)
  u = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period
  v = (y * math.cos(angle) - x * math.sin(angle)) * 2 * math.pi / period
  return np.clip(1.5 * (np.sin(u) + np.sin(v)) - 1, -1, 1)


_TEXTURES = (_waves, _checks, _clouds, _clouds, _slope, _dots)


def _paint(rng, options, mean, size):
  """A textured surface around a mean colour, float32 [height, width, 3]."""
  surface = np.broadcast_to(mean, size + (3,)).astype(np.float32)
  for _ in range(2):
    texture = _TEXTURES[rng.integers(len(_TEXTURES))](rng, *size)
    amplitude = rng.uniform(*options.texture)
    # Each texture pulls towards a colour of its own.
    direction = rng.normal(size=3).astype(np.float32)
    direction *= amplitude / (np.abs(direction).max() + 1e-6)
    surface += texture[..., np.newaxis] * direction
  return surface


# Outlines: polygons around the origin, of radius about 1.


def _circle(radius=1.0):
  angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
  return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(corners, radii=(1.0,)):
  """Corners at equal angles, whose distances take turns."""
  angles = np.arange(corners) * 2 * math.pi / corners
  distances = np.resize(radii, corners)[:, np.newaxis]
  return distances * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross(thickness):
  t = thickness
  quarter = np.array([[t, 1], [t, t], [1, t]])
  # Three corners a quarter turn; the last ones are those before, turned.
  turns = [np.array([[c, -s], [s, c]]) for c, s in _QUARTERS]
  return np.concatenate([quarter @ turn for turn in turns])


_QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def _outlines(rng, name):
  """The outline of a class, and that of its hole or None."""
  if name == 'disc':
    return _circle(), None
  if name == 'square':
    return _regular(4, (1.15,)), None
  if name == 'triangle':
    return _regular(3, (1.25,)), None
  if name == 'star':
    return _regular(10, (1.25, rng.uniform(0.48, 0.58))), None
  if name == 'ring':
    return _circle(), _circle(rng.uniform(0.45, 0.6))
  return _cross(rng.uniform(0.28, 0.4)) * 1.1, None


def _coverage(rng, options, name):
  """Draws one object.

  Returns:
    The share of each pixel it covers, float32 [height, width].
  """
  side = min(options.height, options.width)
  radius = rng.uniform(*options.radius) * side
  aspect = math.sqrt(rng.uniform(*options.aspect))
  angle = rng.uniform(0, 2 * math.pi)
  turn = np.array(
    [
      [math.cos(angle), -math.sin(angle)],
      [math.sin(angle), math.cos(angle)],
    ]
  )
  center = rng.uniform(0, 1, 2) * (options.width, options.height)
  canvas = Image.new(
    'L', (options.width * _OVERSAMPLING, options.height * _OVERSAMPLING)
  )
  draw = ImageDraw.Draw(canvas)
  for outline, value in zip(_outlines(rng, name), (255, 0), strict=True):
    if outline is not None:
      points = outline * (aspect, 1 / aspect) @ turn * radius + center
      draw.polygon([tuple(p) for p in points * _OVERSAMPLING], fill=value)
  return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255


def _grow(mask, pixels):
  """Adds the pixels within a distance along both axes to a bool mask."""
  for _ in range(2):
    grown = mask.copy()
    for shift in range(1, pixels + 1):
      grown[shift:] |= mask[:-shift]
      grown[:-shift] |= mask[shift:]
    mask = grown.T
  return mask


def _band(inside, width):
  """Pixels within half of `width` of an outline, bool [height, width]."""
  return _grow(inside, (width + 1) // 2) & _grow(~inside, width // 2)


def _bounding_box(mask):
  """The rows and the columns of a mask that is not empty, as slices."""
  ends = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
  return tuple(slice(first, last + 1) for first, last in ends)


def _visible_enough(instances, inside, areas, options):
  """Whether a new object leaves enough of those below to be seen."""
  total = inside.sum()
  side = min(options.height, options.width)
  if total < (options.radius[0] * side) ** 2:
    return False
  hidden = np.bincount(instances[inside], minlength=len(areas))
  visible = np.bincount(instances.ravel(), minlength=len(areas)) - hidden
  return (visible[1:] >= options.min_visible * areas[1:]).all()


def _color(rng, hue, saturation):
  """A mean colour that leaves room for textures, [3] in grey levels."""
  value = rng.uniform(0.4, 0.9)
  return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _background_color(rng, options):
  saturation = rng.uniform(*options.background_saturation)
  return _color(rng, rng.uniform(), saturation)


def _object_color(rng, label, around, options):
  """A colour of the class that differs from the one around the object."""
  for _ in range(20):
    hue = label / (len(CLASS_NAMES) - 1)
    hue += rng.uniform(-options.hue_spread, options.hue_spread)
    color = _color(rng, hue, rng.uniform(0.5, 1))
    if np.linalg.norm(color - around) >= options.min_contrast:
      break
  return color


def _draw_lines(rng, image, count):
  """Lines and arcs of no class, drawn into a float image."""
  canvas = Image.new('L', (image.shape[1], image.shape[0]))
  for _ in range(count):
    canvas.paste(0, (0, 0, *canvas.size))
    draw = ImageDraw.Draw(canvas)
    ends = rng.uniform(-0.1, 1.1, 4) * (canvas.size * 2)
    thickness = int(rng.integers(1, 3))
    draw.line([tuple(ends[:2]), tuple(ends[2:])], 255, thickness)
    alpha = np.asarray(canvas, np.float32)[..., np.newaxis] / 255
    alpha *= rng.uniform(0.4, 1)
    image += alpha * (rng.uniform(0, 255, 3).astype(np.float32) - image)


def _draw_specks(rng, image, count):
  """Specks of no class, a few pixels wide."""
  height, width = image.shape[:2]
  for _ in range(count):
    y, x = rng.integers(height), rng.integers(width)
    size = rng.integers(1, 5, 2)
    image[y : y + size[0], x : x + size[1]] = rng.uniform(0, 255, 3)


def _light(rng, options):
  """Factors of uneven lighting, float32 [height, width, 1]."""
  size = options.height, options.width
  light = _slope(rng, *size)
  small = Image.fromarray(rng.uniform(-1, 1, (3, 4)).astype(np.float32))
  patches = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))
  strength = rng.uniform(0, options.light)
  return (1 + strength * (light + patches) / 2)[..., np.newaxis]


def draw(
  rng: np.random.Generator, options: Options
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one image.

  Args:
    rng: all that is random.
    options: size and difficulty.

  Returns:
    image: uint8 [height, width, 3].
    label: uint8 [height, width], classes and IGNORE_LABEL.
  """
  size = options.height, options.width
  image = _paint(rng, options, _background_color(rng, options), size)
  # Whose pixel it is: 0 the background's, i the i-th object's.
  instances = np.zeros(size, np.int64)
  areas = np.zeros(1)
  classes = [0]
  ignored = np.zeros(size, bool)
  num_lines = rng.integers(*options.num_lines, endpoint=True)
  _draw_lines(rng, image, num_lines - num_lines // 2)
  _draw_specks(rng, image, rng.integers(*options.num_specks, endpoint=True))
  for _ in range(rng.integers(*options.num_objects, endpoint=True)):
    label = int(rng.integers(1, len(CLASS_NAMES)))
    alpha = _coverage(rng, options, CLASS_NAMES[label])
    inside = alpha >= 0.5
    if not _visible_enough(instances, inside, areas, options):
      continue
    surroundings = _grow(inside, _SURROUNDINGS) & ~inside
    around = image[surroundings].mean(axis=0)
    color = _object_color(rng, label, around, options)
    box = _bounding_box(alpha > 0)
    part = image[box]
    surface = _paint(rng, options, color, part.shape[:2])
    part += alpha[box][..., np.newaxis] * (surface - part)
    ignored[inside] = False
    ignored |= _band(inside, options.border)
    instances[inside] = len(classes)
    classes.append(label)
    areas = np.append(areas, inside.sum())
  _draw_lines(rng, image, num_lines // 2)
  image = image * _light(rng, options)
  image += rng.normal(0, rng.uniform(*options.noise), image.shape)
  labels = np.array(classes, np.uint8)[instances]
  labels[ignored] = IGNORE_LABEL
  return np.clip(image + 0.5, 0, 255).astype(np.uint8), labels
