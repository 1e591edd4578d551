"""Tables as spreadsheets save them: any usual encoding and separator, each row with its line. Knows no photo."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
#: What begins a file that says its encoding, the longer ones first.
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
#: What a file is read as that says nothing and is no UTF-8: Windows in Cyrillic.
GUESSED = "cp1251"
#: A number of degrees as people write it; `−` is the minus of typographers.
_DEGREES = re.compile(
    r"(?P<before>[NSEW])?\s*(?P<number>[+\-−]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?)\s*°?\s*(?P<after>[NSEW])?",
    re.ASCII | re.IGNORECASE,
)
#: Of any width.
_SPACES = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Row:
    """line: where it begins in the file, from 1. fields: or what is wrong with it, in a sentence."""

    line: int
    fields: list[str] | str


@dataclass(frozen=True, slots=True)
class Sheet:
    """encoding: as it was guessed, None where the file says it or is UTF-8."""

    header: list[str]
    header_line: int
    rows: Iterator[Row]
    encoding: str | None = None


def read_sheet(path: Path, known: Callable[[str], bool]) -> Sheet:
    """The rows of a CSV or TSV file. known: whether a column of this name is wanted, by which its separator is found.

    Raises ValueError with a sentence for a file that cannot be read, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ValueError(f"{path} cannot be opened: {exc.strerror}") from exc
    text, encoding = _text(path, content)
    lines = list(io.StringIO(text, newline=""))
    separator, first = _separator(lines, known)
    rows = _rows(lines, first, separator)
    for row in rows:
        if isinstance(row.fields, str):
            line, why = row.line, row.fields
            raise ValueError(f"{path}, line {line}: {why}")
        if any(field.strip() for field in row.fields):
            return Sheet([field.strip() for field in row.fields], row.line, rows, encoding)
    return Sheet([], 1, rows, encoding)


def degrees(written: str, positive: str, negative: str) -> float | None:
    """`51.5`, `51,5`, `51.5°`, `51.5 N`, `S 51.5`; None for what is no such number. positive, negative: N and S, or E
    and W."""
    found = _DEGREES.fullmatch(_SPACES.sub(" ", written).strip())
    if found is None:
        return None
    letters = ((found["before"] or "") + (found["after"] or "")).upper()
    number = float(found["number"].replace(",", ".").replace("−", "-"))
    if letters not in ("", positive, negative) or (letters and found["number"][0] in "+-−"):
        return None
    return -number if letters == negative else number


# ---------------------------------------------------------------------------------------------- below


def _text(path: Path, content: bytes) -> tuple[str, str | None]:
    marked = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    tried = [marked] if marked else [*_without_mark(content), "utf-8", GUESSED]
    for encoding in tried:
        try:
            return content.decode(encoding), encoding if encoding == GUESSED else None
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
    encodings = ", ".join(encoding.upper() for encoding in tried)
    why = f"this is no text ({encodings}). Save it as CSV in UTF-8"
    raise ValueError(f"{path}, line {line}: {why}")


def _without_mark(content: bytes) -> list[str]:
    """UTF-16 that begins with no mark has a zero beside every letter of English."""
    start = content[:1000]
    zeros = Counter(place % 2 for place, byte in enumerate(start) if byte == 0)
    if zeros.total() < len(start) / 4:
        return []
    return ["utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"]


def _separator(lines: Sequence[str], known: Callable[[str], bool]) -> tuple[str, int]:
    """(separator, first line of the table): the one by which most names of the header are known."""
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if first < len(lines) and (said := re.fullmatch(r'"?sep=(.)"?', lines[first].strip(), re.IGNORECASE)):
        return said[1], first + 1  # a line of Excel's own

    def names(separator: str) -> int:
        row = next(_rows(lines, first, separator), Row(0, ""))
        return sum(map(known, row.fields)) if isinstance(row.fields, list) else 0

    return max(SEPARATORS, key=names), first


def _rows(lines: Sequence[str], first: int, separator: str) -> Iterator[Row]:
    """Rows from this line on. Of a row that cannot be read its first line is lost, and what follows is read anew: a
    quote that nobody closes must not swallow the rest."""
    while first < len(lines):
        reader = csv.reader(iter(lines[first:]), delimiter=separator, skipinitialspace=True, strict=True)
        begins = 0
        try:
            for fields in reader:
                yield Row(first + begins + 1, fields)
                begins = reader.line_num
            return
        except csv.Error as exc:
            yield Row(first + begins + 1, _why(exc, spans=reader.line_num - begins > 1))
            first += begins + 1


def _why(exc: csv.Error, *, spans: bool) -> str:
    """What Python's reader has stopped at, which it says in words for programmers."""
    if spans:
        return "a quote is opened that is not closed"
    if "field limit" in str(exc):
        return f"a field has more than {csv.field_size_limit()} characters"
    return "behind a closing quote stands something else than the next column"
