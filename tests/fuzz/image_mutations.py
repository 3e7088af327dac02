"""Damage to images and masks: kinds of pixels, sizes, and parts of files."""

import io
import random
import struct
import zlib

import numpy as np
from fuzz.file_mutations import BYTE_CHANGES, in_bytes
from PIL import Image

_PNG_HEADER = b'\x89PNG\r\n\x1a\n'
_SIZES = (0, 1, 7, 0x7FFF, 13000, 30000, 65535, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF)


def _open(data):
  return Image.open(io.BytesIO(data))


def _saved(image, kind, **options):
  with io.BytesIO() as output:
    image.save(output, kind, **options)
    return output.getvalue()


# Whole images of another kind.


def _as_mode(mode, kind):
  def change(data, rng):
    del rng
    return _saved(_open(data).convert(mode), kind)

  change.__name__ = f'{mode}_{kind}'
  return change


def sixteen_bits(data, rng):
  grey = np.asarray(_open(data).convert('L')).astype(np.uint16) * 200
  return _saved(Image.fromarray(grey), rng.choice(['PNG', 'TIFF']))


def transparent(data, rng):
  image = _open(data).convert('RGBA')
  image.putalpha(rng.choice([0, 128, 254, 255]))
  return _saved(image, rng.choice(['PNG', 'WEBP', 'TIFF']))


def transparent_palette(data, rng):
  image = _open(data).convert('P')
  return _saved(image, 'PNG', transparency=rng.choice([0, 255, b'\0' * 3]))


def several_pictures(data, rng):
  image = _open(data).convert('RGB')
  kind = rng.choice(['PNG', 'GIF', 'TIFF', 'WEBP', 'MPO'])
  return _saved(image, kind, save_all=True, append_images=[image.rotate(90)])


def other_size(data, rng):
  size = rng.choice([(1, 1), (1, 40), (40, 1), (33, 24), (32, 25), (700, 500)])
  image = _open(data)
  return _saved(image.resize(size, Image.Resampling.NEAREST), 'PNG')


def turned(data, rng):
  exif = Image.Exif()
  exif[0x0112] = rng.choice([1, 3, 6, 9, 65535])
  return _saved(
    _open(data).convert('RGB'), rng.choice(['JPEG', 'PNG']), exif=exif
  )


def bad_exif(data, rng):
  exif = b'Exif\0\0' + rng.choice([b'II*\0', b'MM\0*']) + rng.randbytes(90)
  return _saved(
    _open(data).convert('RGB'), rng.choice(['JPEG', 'PNG']), exif=exif
  )


def bad_profile(data, rng):
  image = _open(data).convert('RGB')
  return _saved(image, 'PNG', icc_profile=rng.randbytes(50))


def other_values(data, rng):
  """Pixels that are no class, whatever the classes."""
  shape = np.asarray(_open(data)).shape
  values = np.random.default_rng(rng.randrange(1 << 32)).integers(0, 256, shape)
  return _saved(Image.fromarray(values.astype(np.uint8)), 'PNG')


def one_value(data, rng):
  image = _open(data)
  value = rng.choice([0, 1, 2, 19, 150, 200, 254, 255])
  pixels = np.full((image.height, image.width), value, np.uint8)
  return _saved(Image.fromarray(pixels), 'PNG')


KINDS = (
  *(_as_mode(mode, 'PNG') for mode in ('1', 'L', 'LA', 'P', 'RGBA', 'I')),
  *(_as_mode('CMYK', kind) for kind in ('JPEG', 'TIFF')),
  *(_as_mode(mode, 'TIFF') for mode in ('F', 'YCbCr')),
  *(_as_mode('RGB', kind) for kind in ('BMP', 'GIF', 'PPM', 'WEBP', 'ICO')),
  *(sixteen_bits, transparent, transparent_palette, several_pictures),
  *(other_size, turned, bad_exif, bad_profile, other_values, one_value),
)


# Parts of PNG files, with their checksums right again.


def _chunks(data):
  """[(kind, content)] of a PNG file."""
  data = data if data.startswith(_PNG_HEADER) else _saved(_open(data), 'PNG')
  found, place = [], len(_PNG_HEADER)
  while place < len(data):
    (length,) = struct.unpack_from('>I', data, place)
    begin = place + 8
    found.append((data[place + 4 : begin], data[begin : begin + length]))
    place = begin + length + 4
  return found


def _png(chunks):
  parts = [_PNG_HEADER]
  for kind, content in chunks:
    checksum = struct.pack('>I', zlib.crc32(kind + content))
    parts += [struct.pack('>I', len(content)), kind, content, checksum]
  return b''.join(parts)


def png_size(data, rng):
  (kind, header), *rest = _chunks(data)
  size = struct.pack('>II', rng.choice(_SIZES), rng.choice(_SIZES))
  return _png([(kind, size + header[8:]), *rest])


def png_header(data, rng):
  """Depth, colour type, compression, filter or interlacing."""
  (kind, header), *rest = _chunks(data)
  header = bytearray(header)
  header[rng.randrange(8, 13)] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
  return _png([(kind, bytes(header)), *rest])


def png_chunk_lost(data, rng):
  chunks = _chunks(data)
  del chunks[rng.randrange(len(chunks))]
  return _png(chunks)


def png_chunks_shuffled(data, rng):
  chunks = _chunks(data)
  chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
  return _png(chunks)


def png_chunk_changed(data, rng):
  chunks = _chunks(data)
  place = rng.randrange(len(chunks))
  kind, content = chunks[place]
  chunks[place] = kind, rng.choice(BYTE_CHANGES)(content or b'\0', rng)
  return _png(chunks)


def png_pixels_changed(data, rng):
  """Pixels that unpack well, but are others, or too few or too many."""
  chunks = _chunks(data)
  packed = b''.join(content for kind, content in chunks if kind == b'IDAT')
  change = rng.choice(BYTE_CHANGES)
  packed = zlib.compress(change(zlib.decompress(packed), rng))
  rest = [chunk for chunk in chunks if chunk[0] != b'IDAT']
  return _png([*rest[:-1], (b'IDAT', packed), rest[-1]])


def png_text(data, rng):
  """Comments, one of which unpacks to a hundred million bytes."""
  bomb = zlib.compress(b'\0' * (100 << 20)) if rng.random() < 0.3 else b'x'
  kind = rng.choice([b'zTXt', b'iTXt', b'tEXt', b'eXIf', b'tRNS', b'acTL'])
  first, *rest = _chunks(data)
  return _png([first, (kind, b'a\0\0' + bomb), *rest])


# Segments of JPEG files.


def _segments(data):
  """The segments in front of the pixels of a JPEG file, and the rest."""
  if not data.startswith(b'\xff\xd8'):
    data = _saved(_open(data).convert('RGB'), 'JPEG')
  found, place = [], 2
  while data[place + 1] != 0xDA:
    (length,) = struct.unpack_from('>H', data, place + 2)
    found.append(data[place : place + 2 + length])
    place += 2 + length
  return found, data[place:]


def _jpeg(segments, rest):
  return b''.join([b'\xff\xd8', *segments, rest])


def jpeg_size(data, rng):
  segments, rest = _segments(data)
  for place, segment in enumerate(segments):
    if segment[1] in (0xC0, 0xC2):
      size = [min(rng.choice(_SIZES), 65535) for _ in range(2)]
      segment = segment[:5] + struct.pack('>HH', *size) + segment[9:]
      segments[place] = segment
  return _jpeg(segments, rest)


def jpeg_segment_changed(data, rng):
  segments, rest = _segments(data)
  place = rng.randrange(len(segments))
  head, content = segments[place][:4], segments[place][4:]
  segments[place] = head + one_byte_of(content, rng)
  return _jpeg(segments, rest)


def one_byte_of(content, rng):
  """Another value of a byte, of any."""
  place = rng.randrange(len(content))
  return content[:place] + rng.randbytes(1) + content[place + 1 :]


def jpeg_segment_lost(data, rng):
  segments, rest = _segments(data)
  del segments[rng.randrange(len(segments))]
  return _jpeg(segments, rest)


def jpeg_segment_doubled(data, rng):
  segments, rest = _segments(data)
  segments.insert(rng.randrange(len(segments)), rng.choice(segments))
  return _jpeg(segments, rest)


def jpeg_marker_changed(data, rng):
  """Such as another way of coding the pixels."""
  segments, rest = _segments(data)
  place = rng.randrange(len(segments))
  marker = bytes([rng.choice([0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xDD, 0xE2, 0xFE])])
  segments[place] = b'\xff' + marker + segments[place][2:]
  return _jpeg(segments, rest)


def jpeg_many_scans(data, rng):
  """The pixels of a progressive file, over and over again."""
  pixels = _open(data).convert('RGB')
  segments, rest = _segments(_saved(pixels, 'JPEG', progressive=True))
  scans = rest.removesuffix(b'\xff\xd9')
  return _jpeg(segments, scans * rng.randint(2, 200) + b'\xff\xd9')


PARTS = (
  *(png_size, png_header, png_chunk_lost, png_chunks_shuffled),
  *(png_chunk_changed, png_pixels_changed, png_text),
  *(jpeg_size, jpeg_segment_changed, jpeg_segment_lost, jpeg_segment_doubled),
  *(jpeg_marker_changed, jpeg_many_scans),
)

CHANGES = (*KINDS, *PARTS)

IMAGES = tuple(map(in_bytes, CHANGES))


def change(data: bytes, rng: random.Random) -> bytes:
  """Any change of an image, of its bytes or of what they mean."""
  changes = BYTE_CHANGES if rng.random() < 0.4 else CHANGES
  return rng.choice(changes)(data, rng)
