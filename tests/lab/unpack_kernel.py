#!/usr/bin/env python3
"""Unpacks the payload of a bzImage: unpack_kernel.py VMLINUZ VMLINUX.

An emulated CPU takes seconds to do this itself at every start of the lab. A payload that isn't xz or gzip is
left packed: the output is then the bzImage, which boots too.
"""

import lzma
import shutil
import struct
import sys
import zlib


def main(source: str, target: str) -> None:
    with open(source, "rb") as file:
        image = file.read()
    # Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length
    setup_sects = image[0x1F1] or 4
    payload_offset, payload_length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sects + 1) * 512 + payload_offset
    payload = image[start:start + payload_length]
    if payload.startswith(b"\xfd7zXZ\0"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x1f\x8b\x08"):
        kernel = zlib.decompressobj(wbits=31).decompress(payload)
    else:
        shutil.copyfile(source, target)
        return
    with open(target, "wb") as file:
        file.write(kernel)


if __name__ == "__main__":
    main(*sys.argv[1:])
