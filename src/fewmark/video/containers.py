"""Whether a video file is whole: the lengths that its container states, compared with the file's own."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")
_STILL_HEADS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
_SEGMENT, _CLUSTER, _EBML = 0x18538067, 0x1F43B675, 0x1A45DFA3
_TS_PACKET = 188  # bytes


@dataclass(frozen=True)
class Container:
    """What a file's container says about itself.

    Attributes:
        kind: "" for a container that is not known here.
        is_cut: The file ends before the container does.
        is_broken: Its parts do not follow each other, though its length is right.
        has_table: It lists its frames, so that its number of frames is counted, not estimated.
        is_image: It holds a still image.
    """

    kind: Literal["mp4", "avi", "matroska", "ts", "gif", ""] = ""
    is_cut: bool = False
    is_broken: bool = False
    has_table: bool = False
    is_image: bool = False


def read_container(path: Path) -> Container:
    """Inspect a file that is not empty; its frames are not decoded."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _mp4(data)
        if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
            return _avi(data)
        if data[:4] == _EBML.to_bytes(4):
            return _matroska(data)
        if data[:4] == b"GIF8":
            return Container("gif", is_cut=not data[-64:].rstrip(b"\0").endswith(b";"))
        if data[0] == 0x47 and len(data) > _TS_PACKET and data[_TS_PACKET] == 0x47:
            return Container("ts", is_cut=len(data) % _TS_PACKET != 0)
        still = data[:4].startswith(_STILL_HEADS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        return Container(is_image=still and path.suffix.lower() not in (".mjpeg", ".mjpg"))


def _mp4(data: mmap.mmap) -> Container:
    """ISO/IEC 14496-12: boxes of a length and a name, one after the other."""
    if data[4:8] == b"ftyp" and data[8:12] in _STILL_BRANDS:
        return Container("mp4", is_image=True)
    at, names = 0, []
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if not all(32 <= c < 127 or c == 0xA9 for c in name):
            break  # padding after the last box
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16])
        elif length == 0:  # up to the file's end
            length = len(data) - at
        if length < 8:
            break
        names.append(name)
        at += length
    ends_early = at > len(data) or bool(names and names[-1] == b"moof") or b"moov" not in names
    return Container("mp4", is_cut=ends_early, has_table=b"moof" not in names)


def _avi(data: mmap.mmap) -> Container:
    """RIFF: chunks of a name and a length; long files have several RIFF chunks."""
    at = 0
    while at + 8 <= len(data) and data[at : at + 4] == b"RIFF":
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if length == 0:  # the length is filled in when a recording ends
            return Container("avi", is_cut=True)
        at += 8 + length + length % 2
    return Container("avi", is_cut=at > len(data) + 1, has_table=True)


def _matroska(data: mmap.mmap) -> Container:
    """RFC 8794 and 9559: elements of an id and a length; a live recording's segment and clusters have no length."""
    at, end = 0, -1  # end of the segment; -1: not stated
    while at < len(data):
        head = _element(data, at)
        if head is None:
            break
        name, start, length = head
        if name == _SEGMENT:
            end = -1 if length is None else start + length
        if name in (_SEGMENT, _CLUSTER):
            at = start
        elif length is None:
            break
        else:
            at = start + length
    if end > len(data) or (end < 0 and at != len(data)):
        return Container("matroska", is_cut=True)
    return Container("matroska", is_broken=at < end or at > len(data))


def _element(data: mmap.mmap, at: int) -> tuple[int, int, int | None] | None:
    """Id of the element at a byte, where its content starts, and its length, None if not stated; None: no element."""
    n_id = 9 - data[at].bit_length()
    if n_id > 4 or at + n_id >= len(data):
        return None
    n_length = 9 - data[at + n_id].bit_length()
    start = at + n_id + n_length
    if n_length > 8 or start > len(data):
        return None
    bits = 7 * n_length
    length = int.from_bytes(data[at + n_id : start]) & ((1 << bits) - 1)
    return int.from_bytes(data[at : at + n_id]), start, None if length == (1 << bits) - 1 else length
