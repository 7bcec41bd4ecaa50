"""Text of label files: its encoding, the cells of a table, and values cut short for messages."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError

FARTHEST = 1e9
"""Largest position that label files may state, px: in single precision, larger numbers may be infinite."""
_DELIMITERS = (",", ";", "\t", "|")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NO_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_NUMBER = re.compile(r"[-+]?(?:\d+,?\d*|,\d+)(?:[eE][-+]?\d+)?")


def short(value: object, length: int = 60) -> str:
    """Format a value for a message, cut at `length` characters.

    >>> short("x" * 9, 5)
    'xx...'
    """
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def read_text(path: Path, expected: str) -> str:
    """Read a text file in UTF-8, or in UTF-16 with its byte order mark, as Windows and spreadsheets write it.

    Args:
        path: The file.
        expected: What it should be, for messages.

    Raises:
        InputError: The file cannot be read or has another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        place = error.start
    if data.startswith(b"PK\3\4"):
        raise InputError(f"{path}: expected {expected}, given a workbook or zip file; export it from the spreadsheet")
    given = f"{path}: expected {expected} in UTF-8, given an invalid byte at {place}"
    if data.startswith(_UTF16) or b"\0" in data[:4096] or data[place] in _NO_CP1252:
        raise InputError(f"{given}; save it as UTF-8")
    before, after = re.split(rb"[\s,;|]", data[:place])[-1], re.split(rb"[\s,;|]", data[place:])[0]
    word = short((before[-20:] + after).decode("cp1252", "replace"), 40)
    raise InputError(f"{given}: perhaps Windows-1252 or Latin-1 (then it says {word!r}); save it as UTF-8")


def _encoding(data: bytes) -> str:
    if data.startswith(_UTF16):
        return "utf-16"
    zeros = "".join("0" if byte == 0 else "x" for byte in data[:4])  # of plain letters in UTF-16 without a mark
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "utf-8-sig")


def read_json(path: Path) -> Any:
    """Read a JSON file, in UTF-8 or UTF-16.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a JSON file ({short(error, 120)})") from error


@dataclass(frozen=True)
class Table:
    """A text file of cells.

    Attributes:
        header: Names of the columns.
        rows: Cells of the rows that are not blank, as many as in the header.
        lines: Line of each row.
        n_blank: Number of blank rows, besides empty lines at the end.
        decimal_comma: Whether a comma in a number is a decimal point, since other characters separate the cells.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    n_blank: int
    decimal_comma: bool


def read_table(path: Path, key: str) -> Table:
    """Read a CSV file with commas, semicolons, tabs or bars between the cells, which its header shows; `sep=;` before it is taken too.

    Args:
        path: The file.
        key: A column that must be there.

    Raises:
        InputError: The file cannot be read, has no such column, or a row has another number of cells than the header.
    """
    text = read_text(path, "a CSV file")
    first, rest = (*re.split(r"\r\n|\r|\n", text, maxsplit=1), "")[:2]
    n_before, stated = 0, re.fullmatch(r'"?sep=(.)"?[,;\t|]*', first, re.IGNORECASE)
    if stated is not None:
        text, n_before = rest, 1
    delimiter = stated[1] if stated is not None else _delimiter(first, key)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t")
    rows: list[list[str]] = []
    lines: list[int] = []
    blank: list[tuple[int, bool]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if key not in header:
            given = ", ".join(short(name.split("\n")[0], 20) for name in header[:4]) or "an empty file"
            raise InputError(f"{path}: header: expected a column `{key}`, given {given}")
        for row in reader:
            line = reader.line_num + n_before
            if not any(cell.strip() for cell in row):
                blank.append((line, bool(row)))
                continue
            if len(row) != len(header):
                hint = "; decimal commas need semicolons between the cells" if len(row) > len(header) else ""
                raise InputError(
                    f"{path}: row {line}: expected {len(header)} cells as in the header, given {len(row)}"
                    + (hint if delimiter == "," else "")
                )
            rows.append(row)
            lines.append(line)
    except csv.Error as error:
        raise InputError(f"{path}: row {reader.line_num + n_before}: not a CSV file ({error})") from error
    last = lines[-1] if lines else 0
    n_blank = sum(with_cells or line < last for line, with_cells in blank)
    return Table(header, rows, lines, n_blank, delimiter != ",")


def _delimiter(header: str, key: str) -> str:
    """The character between the cells of a header: with it there is the column `key`, and most cells."""

    def cells(delimiter: str) -> tuple[bool, int]:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # reported where the header is read
            return False, 0
        return key in (name.strip() for name in names), len(names)

    return max(_DELIMITERS, key=cells)


def decimal(cell: str) -> float:
    """Read a number with a decimal comma.

    Raises:
        ValueError: It is none, or may have a comma between thousands.

    >>> decimal("12,5"), decimal(" -,25e1")
    (12.5, -2.5)
    """
    cell = cell.strip()
    return float(cell.replace(",", ".") if _NUMBER.fullmatch(cell) else cell)
