"""Pictures encoded again as RGB JPEG: smaller, or out of PNG and CMYK."""

from tf_largebatch.data.prepare.options import Options
from tf_largebatch.data.prepare.pictures import Header, PictureError, read_header
from tf_largebatch.records.quiet import import_tensorflow


def is_wanted(header: Header, options: Options) -> bool:
    """Returns whether `options` ask for new bytes."""
    limit = options.max_short_side
    too_large = limit is not None and min(header.width, header.height) > limit
    return too_large or (options.reencode_odd and bool({"cmyk", "png"} & set(header.oddities())))


def decode(encoded: bytes, header: Header):
    """Returns the pixels as RGB, uint8 [height, width, 3]; an Exif orientation is not applied.

    Raises:
        PictureError: the bytes do not decode, or not to the header's size.
    """
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


def reencode(encoded: bytes, header: Header, options: Options) -> tuple[bytes, Header]:
    """Returns the picture as RGB JPEG with its shorter side bounded, and the new header.

    Reduced with a bicubic filter, antialiased; never enlarged. Exif data is dropped: readers for
    training ignore the orientation, so the pixels stay as they are stored.

    Raises:
        PictureError: the picture does not decode.
    """
    tf = import_tensorflow()
    pixels = decode(encoded, header)
    short = min(header.width, header.height)
    limit = options.max_short_side or short
    if short > limit:
        size = [max(1, round(side * limit / short)) for side in (header.height, header.width)]
        resized = tf.image.resize(pixels, size, method="bicubic", antialias=True)
        pixels = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    again = tf.io.encode_jpeg(pixels, quality=options.quality, format="rgb").numpy()
    return again, read_header(again)
