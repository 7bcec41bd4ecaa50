"""File names in text: names that are no UTF-8, and names with line breaks or control characters.

Python holds a byte of a name that is no UTF-8 as a surrogate, U+DC80 to U+DCFF, which UTF-8 files cannot hold. Everywhere such a byte, say
E1, is written as the six characters `\\udce1`: in JSON that is the language's own escape, so `json.loads` gives the path back; in CSV and
XML `unescape_name` does.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f]|005c)")
_LOOKS_ESCAPED = re.compile(r"\\(?=u(?:dc[89a-f][0-9a-f]|005c))")  # such a backslash is escaped itself
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _code(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def escape_name(name: str) -> str:
    """Escape the bytes of a name that are no UTF-8, for a text file; `unescape_name` restores the name.

    >>> escape_name("foto\\udce1.jpg") == r"foto\\udce1.jpg", escape_name("plain.jpg")
    (True, 'plain.jpg')
    """
    return _SURROGATE.sub(_code, _LOOKS_ESCAPED.sub(r"\\u005c", name))


def unescape_name(text: str) -> str:
    """Undo `escape_name`.

    >>> all(unescape_name(escape_name(n)) == n for n in ("foto\\udce1.jpg", r"a\\udce1", r"\\u005cudce1", r"\\\\udce1", "b"))
    True
    """
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text)


def one_line(text: str) -> str:
    """Escape everything in a message that would break its line or that a terminal cannot print.

    >>> one_line("a\\nb.jpg: empty")
    'a\\\\nb.jpg: empty'
    """
    return _CONTROL.sub(lambda m: _SHORT.get(m[0]) or _code(m), text)


def dump_json(data: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """Format data as JSON that every encoding can hold: names that are no UTF-8 are escaped, and read back as they were.

    >>> json.loads(dump_json({"file": "foto\\udce1.jpg", "name": "Zoë"})) == {"file": "foto\\udce1.jpg", "name": "Zoë"}
    True
    """
    return _SURROGATE.sub(_code, json.dumps(data, indent=indent, ensure_ascii=ascii_only, allow_nan=False))
