#!/usr/bin/env python3
"""Writes tests/vectors/images/: one small drawn picture in every mode that files come in, and what Pillow makes of each.

NAME is the file, NAME.rgb.png its pixels by Pillow: the first frame, alpha laid over white, convert("RGB"). The
orientation-N.jpg carry that EXIF orientation; they have no pixels beside them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install Pillow numpy
    /tmp/venv/bin/python scripts/image-modes.py
"""

import io
import pathlib
import struct
import zlib

import numpy
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "vectors" / "images"
WIDTH, HEIGHT = 29, 22
# The passes of an interlaced PNG: first column, first row, step across, step down.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def planes(count, depth):
    """Slopes in different directions, with a step in the middle; values from 0 to 2**depth - 1."""
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    slopes = [x * 13 + y * 3, y * 11 + x, (x + y) * 7, (WIDTH - x) * 9 + y * 2][:count]
    values = numpy.stack(slopes, axis=-1) + 90 * ((x - 14) ** 2 + (y - 11) ** 2 < 40)[..., None]
    return (values * 257 % 65536) >> (16 - depth)


def png(kind, depth, values, interlaced=False, chunks=()):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def rows(part):
        for row in part:
            samples = row.reshape(-1)
            if depth == 16:
                body = samples.astype(">u2").tobytes()
            elif depth == 8:
                body = samples.astype("u1").tobytes()
            else:
                bits = ((samples[:, None] >> numpy.arange(depth - 1, -1, -1)) & 1).reshape(-1)
                body = numpy.packbits(bits.astype("u1")).tobytes()
            yield b"\0" + body

    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    parts = [values[top::down, left::across] for left, top, across, down in passes]
    raw = b"".join(b"".join(rows(part)) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, int(interlaced))
    middle = b"".join(chunk(name, body) for name, body in chunks)
    end = chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + end


def pngs():
    grey, grey_alpha, rgb, rgba, indexed = 0, 4, 2, 6, 3
    for depth in (1, 2, 4, 8, 16):
        yield f"grey{depth}.png", png(grey, depth, planes(1, depth))
    for depth in (8, 16):
        yield f"grey-alpha{depth}.png", png(grey_alpha, depth, planes(2, depth))
        yield f"rgb{depth}.png", png(rgb, depth, planes(3, depth))
        yield f"rgba{depth}.png", png(rgba, depth, planes(4, depth))
    for depth in (1, 2, 4, 8):
        colours = bytes(numpy.random.default_rng(depth).integers(0, 256, 3 << depth, dtype="u1"))
        yield f"palette{depth}.png", png(indexed, depth, planes(1, depth), chunks=[(b"PLTE", colours)])
    clear = (b"tRNS", bytes(range(0, 256, 3)))
    yield "palette-alpha8.png", png(indexed, 8, planes(1, 8), chunks=[(b"PLTE", colours), clear])
    yield "grey-key8.png", png(grey, 8, planes(1, 8), chunks=[(b"tRNS", struct.pack(">H", int(planes(1, 8)[5, 5, 0])))])
    yield "rgb-key8.png", png(rgb, 8, planes(3, 8), chunks=[(b"tRNS", struct.pack(">HHH", *map(int, planes(3, 8)[5, 5])))])
    yield "interlaced-grey2.png", png(grey, 2, planes(1, 2), interlaced=True)
    yield "interlaced-rgba8.png", png(rgba, 8, planes(4, 8), interlaced=True)
    yield "interlaced-rgb16.png", png(rgb, 16, planes(3, 16), interlaced=True)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def without_adobe(jpeg):
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] :]


def pillows():
    image = {m: Image.fromarray(planes(n, 8).astype("u1").squeeze(), m) for m, n in [("L", 1), ("RGB", 3), ("RGBA", 4), ("CMYK", 4)]}
    smooth = image["RGB"].resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.BICUBIC)
    yield "grey.jpg", saved(image["L"], "JPEG", quality=92)
    yield "rgb444.jpg", saved(smooth, "JPEG", quality=92, subsampling=0)
    yield "rgb420.jpg", saved(smooth, "JPEG", quality=92, subsampling=2)
    yield "rgb422.jpg", saved(smooth, "JPEG", quality=92, subsampling=1)
    yield "progressive.jpg", saved(smooth, "JPEG", quality=92, subsampling=2, progressive=True)
    yield "restarts.jpg", saved(smooth, "JPEG", quality=92, restart_marker_blocks=2)
    yield "adobe-rgb.jpg", saved(smooth, "JPEG", quality=92, keep_rgb=True)
    cmyk = saved(image["CMYK"].resize(smooth.size, Image.Resampling.BICUBIC), "JPEG", quality=92)
    yield "adobe-cmyk.jpg", cmyk
    yield "plain-cmyk.jpg", without_adobe(cmyk)
    adobe = cmyk.index(b"Adobe")
    yield "adobe-ycck.jpg", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]
    indexed = image["RGB"].quantize(200)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation-{orientation}.jpg", saved(image["L"], "JPEG", quality=70, exif=exif)
    small = image["RGB"].resize((9, 7)).quantize(16)
    yield "palette.gif", saved(indexed, "GIF")
    yield "transparent.gif", saved(indexed, "GIF", transparency=indexed.getpixel((3, 3)))
    yield "animated.gif", saved(indexed, "GIF", save_all=True, append_images=[small.resize(indexed.size)], duration=50)
    # The first frame covers a part of the canvas only.
    part = bytearray(saved(small, "GIF", transparency=small.getpixel((3, 3))))
    part[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    at = part.index(b"\x2c\0\0\0\0", 13)
    part[at + 1 : at + 5] = struct.pack("<HH", 4, 5)
    yield "part.gif", bytes(part)
    yield "lossless.webp", saved(image["RGB"], "WEBP", lossless=True)
    yield "lossless-alpha.webp", saved(image["RGBA"], "WEBP", lossless=True, exact=True)
    yield "lossy.webp", saved(smooth, "WEBP", quality=90)
    yield "lossy-alpha.webp", saved(image["RGBA"].resize(smooth.size), "WEBP", quality=90)
    frames = dict(save_all=True, append_images=[image["RGB"].rotate(180)], duration=50, lossless=True)
    yield "animated.webp", saved(image["RGB"], "WEBP", **frames)
    yield "animated-alpha.webp", saved(image["RGBA"], "WEBP", **{**frames, "append_images": [image["RGBA"].rotate(180)]})
    yield "rgb24.bmp", saved(image["RGB"], "BMP")
    yield "rgba32.bmp", saved(image["RGBA"], "BMP")
    yield "palette8.bmp", saved(indexed, "BMP")
    yield "grey8.bmp", saved(image["L"], "BMP")
    yield "black-and-white.bmp", saved(image["L"].convert("1"), "BMP")


def pixels(path):
    image = Image.open(path)
    image.seek(0)
    if image.mode == "I;16":
        # Pillow cuts 16-bit grey at 255, so that nearly all of it is white; of colours it keeps the upper half.
        return Image.fromarray((numpy.array(image) >> 8).astype("u1"), "L").convert("RGB")
    if "A" in image.mode or "transparency" in image.info or image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, body in [*pngs(), *pillows()]:
        (FOLDER / name).write_bytes(body)
        if not name.startswith("orientation"):
            pixels(FOLDER / name).save(FOLDER / f"{name}.rgb.png", optimize=True)
        print(name, Image.open(FOLDER / name).mode)


main()
