"""An image that came in a request: a data URL, checked before it is unpacked, as the square PNG that the tower reads."""

import base64
import binascii
import io

from PIL import Image, UnidentifiedImageError

from so8t.preprocess.config import Preprocess
from so8t.preprocess.pictures import UnreadableMedia, picture
from so8t.records import Record
from so8t.serve.config import Resampling
from so8t.serve.prompt import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def unpack(url: str) -> bytes:
    """The bytes of a data URL in base64. Nothing is fetched: BadRequest for any other URL."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        raise BadRequest("an image must be a data URL in base64; nothing is fetched from elsewhere")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise BadRequest("the image's base64 is broken") from None


def as_read(data: bytes, edge: int, pixels_max: int, resampling: Resampling) -> bytes:
    """A PNG of `edge` squared, stretched as in training; BadRequest for what is no image or too large a one."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise BadRequest(f"the image is none of {', '.join(FORMATS)}") from None
    if width * height > pixels_max:
        raise BadRequest(f"an image of {width}x{height} pixels; {pixels_max:,} are allowed")
    try:
        row = Record("request", "image", "", "", media=data)
        return picture(row, Preprocess(image_size=edge, resampling=resampling))
    except (UnreadableMedia, ValueError, SyntaxError) as error:
        # Pillow's PNG reader raises SyntaxError for broken chunks.
        raise BadRequest(f"the image cannot be read ({type(error).__name__})") from None
