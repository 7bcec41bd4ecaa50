"""Give an MP4 file of MPEG-4 part 2 an odd width or height: OpenCV writes even ones only."""

from __future__ import annotations

from pathlib import Path


def set_mp4_size(path: Path, size: tuple[int, int]) -> None:
    """Change the stated size of a video by at most a row and a column, in place.

    Frames are coded in blocks of 16 px, so that an odd side has as many as the even one above it: the coded frames stay valid, and
    a player shows a row or column less. A file without the expected fields is left as it is.

    Args:
        path: An MP4 file as OpenCV writes it, one MPEG-4 part 2 track.
        size: (width, height), each the file's own or one less.
    """
    with path.open("r+b") as file:
        at, end = 0, path.stat().st_size
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4])
            if head[4:8] == b"moov":
                file.seek(at)
                index = bytearray(file.read(length))
                if _set_size(index, *size):
                    file.seek(at)
                    file.write(index)
                return
            at += max(8, int.from_bytes(head[8:16]) if length == 1 else length)


def _set_size(moov: bytearray, width: int, height: int) -> bool:
    """Set the size in the three places that state it: the track's head, the sample entry and the stream's own head."""
    track, entry, stream = moov.find(b"tkhd"), moov.find(b"mp4v", moov.find(b"stsd")), moov.find(b"\0\0\1\x20")
    if min(track, entry, stream) < 0:
        return False
    at = _size_bit(moov, stream + 4)  # ISO/IEC 14496-2, 6.2.3
    bits = int.from_bytes(moov[stream:])
    n = 8 * (len(moov) - stream)
    for value, first in ((width, at), (height, at + 14)):
        shift = n - (first - 8 * stream) - 13
        bits = bits & ~(0x1FFF << shift) | value << shift
    moov[stream:] = bits.to_bytes(n // 8)
    moov[track + 80 : track + 88] = (width << 16).to_bytes(4) + (height << 16).to_bytes(4)
    moov[entry + 28 : entry + 32] = width.to_bytes(2) + height.to_bytes(2)
    return True


def _size_bit(data: bytearray, start: int) -> int:
    """Bit at which the width stands in a video object layer whose fields start at a byte: 13 bits, a marker, 13 bits of height."""
    at = 8 * start

    def read(n: int) -> int:
        nonlocal at
        byte, at = at // 8, at + n
        return (int.from_bytes(data[byte : byte + 8]) >> (64 - (at - 8 * byte))) & ((1 << n) - 1)

    read(1 + 8)  # random access, type
    if read(1):
        read(4 + 3)  # version, priority
    if read(4) == 15:
        read(8 + 8)  # shape of a pixel
    if read(1):  # control
        read(2 + 1)  # colours, delay
        if read(1):
            read(79)  # rates and buffers
    read(2 + 1)  # shape
    resolution = read(16)
    read(1)
    if read(1):  # fixed rate
        read(max(1, (resolution - 1).bit_length()))
    read(1)
    return at
