"""One picture: what its header says, its pixels, and the same encoded again as RGB JPEG."""

import struct
from typing import NamedTuple

from tf_largebatch.records.quiet import import_tensorflow

# Start of frame: every coding process but the four codes that mark tables (ITU-T T.81, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_EXIF, _SCAN, _END = 0xE1, 0xDA, 0xD9
_ORIENTATION = 0x0112  # Exif 2.3, table 4
_PNG = b"\x89PNG\r\n\x1a\n"
# Channels by colour type (PNG specification, 11.2.2); a palette is of RGB.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


class PictureError(ValueError):
    """The bytes are no picture that can be used. The message says why, without the name."""


class Header(NamedTuple):
    """What a picture's first bytes say."""

    format: str  # "JPEG" or "PNG", by the bytes and not by a file's name
    width: int  # pixels, as stored
    height: int
    channels: int  # 1 grey, 3 colour, 4 CMYK in a JPEG; with transparency 2 or 4 in a PNG
    orientation: int = 1  # of Exif, 1 to 8; 1 is upright or not said

    def oddities(self) -> tuple[str, ...]:
        """Returns what other readers stumble over, of "cmyk", "grey", "png", "rotated"."""
        found = {
            "cmyk": self.format == "JPEG" and self.channels == 4,
            "grey": self.channels < 3,
            "png": self.format == "PNG",
            "rotated": self.orientation != 1,
        }
        return tuple(name for name, holds in found.items() if holds)


def read_header(encoded: bytes) -> Header:
    """Returns the header of a JPEG or PNG; its pixels are not looked at."""
    if encoded.startswith(b"\xff\xd8"):
        return _read_jpeg(encoded)
    if encoded.startswith(_PNG):
        return _read_png(encoded)
    if not encoded:
        raise PictureError("is empty (0 bytes)")
    raise PictureError(f"is neither JPEG nor PNG (first bytes {encoded[:4].hex()})")


def _read_png(encoded: bytes) -> Header:
    if len(encoded) < 29 or encoded[12:16] != b"IHDR":
        raise PictureError("is a PNG cut short in its header")
    width, height, _, colour_type = struct.unpack_from(">IIBB", encoded, 16)
    if not width or not height or colour_type not in _PNG_CHANNELS:
        raise PictureError("is a PNG with a damaged header")
    return Header("PNG", width, height, _PNG_CHANNELS[colour_type])


def _read_jpeg(encoded: bytes) -> Header:
    """Walks the segments up to the frame (T.81, B.1.1)."""
    place, orientation = 2, 1
    while place + 4 <= len(encoded):
        if encoded[place] != 0xFF:
            raise PictureError(f"is a JPEG with a damaged header (byte {place:,})")
        marker = encoded[place + 1]
        if marker == 0xFF or marker in _ALONE:  # 0xFF: any number may fill the space before one
            place += 1 if marker == 0xFF else 2
            continue
        if marker in (_SCAN, _END):
            raise PictureError("is a JPEG without a frame")
        (length,) = struct.unpack_from(">H", encoded, place + 2)
        body = encoded[place + 4 : place + 2 + length]
        if marker in _FRAMES:
            if len(body) < 6:
                break
            _, height, width, channels = struct.unpack_from(">BHHB", body)
            if width and height and channels in (1, 3, 4):
                return Header("JPEG", width, height, channels, orientation)
            raise PictureError(f"is a JPEG of {width} x {height} pixels with {channels} channels")
        if marker == _EXIF and body.startswith(b"Exif\0\0"):
            orientation = _read_orientation(body[6:])
        place += 2 + length
    raise PictureError("is a JPEG cut short in its header")


def _read_orientation(tiff: bytes) -> int:
    """Returns the orientation in an Exif block; 1 where it says none that is valid."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for place in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, place)
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1


def decode(encoded: bytes, header: Header):
    """Returns the pixels as RGB, uint8 [height, width, 3]; an Exif orientation is not applied."""
    tf = import_tensorflow()
    try:
        if header.format == "JPEG":
            pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        else:
            pixels = tf.io.decode_png(encoded, channels=3)
    except tf.errors.InvalidArgumentError as error:
        raise PictureError("does not decode") from error
    if tuple(pixels.shape) != (header.height, header.width, 3):
        raise PictureError(
            f"decodes to {pixels.shape[1]} x {pixels.shape[0]} pixels; its header says "
            f"{header.width} x {header.height}"
        )
    return pixels


def reencode(encoded: bytes, header: Header, limit: int | None, quality: int) -> bytes:
    """Returns the picture as RGB JPEG with its shorter side at most `limit` pixels.

    Reduced with a bicubic filter, antialiased; never enlarged. Exif data is dropped: readers for
    training ignore the orientation, so the pixels stay as they are stored.
    """
    tf = import_tensorflow()
    pixels = decode(encoded, header)
    short = min(header.width, header.height)
    if limit is not None and short > limit:
        size = [max(1, round(side * limit / short)) for side in (header.height, header.width)]
        resized = tf.image.resize(pixels, size, method="bicubic", antialias=True)
        pixels = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return tf.io.encode_jpeg(pixels, quality=quality, format="rgb").numpy()
