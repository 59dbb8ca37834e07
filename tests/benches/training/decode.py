"""Makes numbers of a PNG's bytes: with Pillow where it is installed."""
import io, struct, zlib

SIDE = 96

try:
    from PIL import Image
    DECODER = "Pillow"
except ImportError:
    DECODER = "zlib alone"


def pixels(content):
    """Three bytes for each of SIDE * SIDE pixels."""
    if DECODER == "Pillow":
        image = Image.open(io.BytesIO(content)).convert("RGBA")
        return bytearray(image.resize((SIDE, SIDE), Image.BILINEAR, reducing_gap=2).convert("RGB").tobytes())
    # No picture, as its lines stay filtered, but most of the work of making one.
    at, packed = 8, b""
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at:at + 8])
        if kind == b"IDAT":
            packed += content[at + 8:at + 8 + length]
        at += length + 12
    size = 3 * SIDE * SIDE
    return bytearray(zlib.decompress(packed)[:size].ljust(size, b"\0"))
