"""Tables that are whole on every terminal: no line is longer than it, and no letter is lost. Knows no command."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import rich.table
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.style import StyleType
from rich.text import Text

from producer_client.errors import short

#: Cells that a column has at the least; where there is no room for so many, the rows are lists of "name: value".
FEWEST = 5
#: Cells of a word that stays in one piece for as long as there is room; a longer one is a name, and of an end of a path
#: so much can be read.
READABLE = 10

LINES, WORDS = re.compile(r"[^\n]+"), re.compile(r"\S+")


class PathShown:
    """A path in a table: where there is no room for all of it, its end. The file's own name is always whole."""

    def __init__(self, path: str) -> None:
        self._path = printable(short(path).expandtabs())

    def longest(self, _: re.Pattern[str]) -> int:
        return cell_len(self._path)

    def at(self, width: int) -> Text:
        return folded(Text(_end_of(self._path, width)), width)


class Table(rich.table.Table):
    """As rich's, which may be wider than its console once a column has a minimum or holds a long word.

    A cell is markup, a PathShown, or a tuple of these, each on a line of its own. `min_width` and `no_wrap` of a column
    are wishes: they hold for as long as there is room, and words are whole.
    """

    def add_row(
        self,
        *renderables: RenderableType | PathShown | tuple[str | PathShown, ...] | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        super().add_row(*map(_Cell, renderables), style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bare = self._drawn([1] * len(self.columns))
        frame = Measurement.get(console, options.update_width(10_000), bare).maximum - len(self.columns)
        widths = self._widths(options.max_width - frame)
        if widths is None:
            yield from self._listed(options.max_width)
        else:
            yield from super(Table, self._drawn(widths)).__rich_console__(console, options)

    def _drawn(self, widths: Sequence[int]) -> Table:
        drawn = copy.copy(self)
        drawn.columns = [
            replace(column, header=_Cell(column.header), width=width)
            for column, width in zip(self.columns, widths, strict=True)
        ]
        drawn.title, drawn.caption = self._around()
        return drawn

    def _around(self) -> list[Text | None]:
        """The title and the caption."""
        named = ((self.title, "table.title"), (self.caption, "table.caption"))
        return [_text(text, style) if text else None for text, style in named]

    def _widths(self, room: int) -> list[int] | None:
        """Of each column, without its frame; nothing where there is no room for all."""
        cells = [[_Cell(column.header), *column.cells] for column in self.columns]

        def longest(pattern: re.Pattern[str]) -> list[int]:
            return [max(cell.longest(pattern) for cell in column if isinstance(cell, _Cell)) for column in cells]

        # No wider than all that there is: the longest line may be that of a whole file.
        widths = [
            min(max(whole, column.min_width or 0), column.max_width or room, room)
            for column, whole in zip(self.columns, longest(LINES), strict=True)
        ]
        wished = [
            width if column.no_wrap else column.min_width or 0
            for column, width in zip(self.columns, widths, strict=True)
        ]
        words = [min(word, READABLE) for word in longest(WORDS)]
        fewest = [FEWEST] * len(widths)
        tried = (
            _cut(widths, floors, room)
            for floors in ([*map(max, wished, words)], words, [*map(max, wished, fewest)], fewest)
        )
        return next((cut for cut in tried if sum(cut) <= room), None)

    def _listed(self, width: int) -> Iterator[Text]:
        title, caption = self._around()
        if title:
            yield title
        for row in zip_longest(*(column.cells for column in self.columns)):
            for column, cell in zip(self.columns, row, strict=True):
                value = cell.at(width) if isinstance(cell, _Cell) else Text()
                name = _text(column.header)
                if value:
                    yield folded(Text.assemble(name, ": ", value) if name else value, width)
            yield Text()
        if caption:
            yield caption


class _Cell:
    def __init__(self, content: object) -> None:
        parts = content if isinstance(content, tuple) else (content,)
        self._parts = [part if isinstance(part, PathShown) else _text(part) for part in parts]

    def longest(self, pattern: re.Pattern[str]) -> int:
        """Cells of the longest line or word."""
        return max(
            part.longest(pattern)
            if isinstance(part, PathShown)
            else max(map(cell_len, pattern.findall(part.plain)), default=0)
            for part in self._parts
        )

    def at(self, width: int) -> Text:
        return Text("\n").join(
            part.at(width) if isinstance(part, PathShown) else folded(part, width) for part in self._parts
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.at(options.max_width)


def printable(text: str) -> str:
    """What others have written, for a terminal: of what would steer it, how it is written in Python."""
    return "".join(c.encode("unicode_escape").decode() if _steers(c) else c for c in text)


def moment(at: str, between: str = " ") -> str:
    """at: as the service writes it, in UTC: 2026-11-28T08:12:33+00:00. between: what stands between day and hour."""
    return f"{at.removesuffix('+00:00').replace('T', between)} UTC"


def folded(text: Text, width: int) -> Text:
    """On as many lines as it takes, of which none has more cells: broken between words, in a name after one of
    `/ - _ . , =`, else anywhere."""
    lines = [part for line in text.split(allow_blank=True) for part in line.divide(_breaks(line.plain, width))]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _steers(letter: str) -> bool:
    # The joiners are of emoji, and of letters in many scripts.
    return letter not in "\n\t\u200c\u200d" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")


def _text(content: object, style: str = "") -> Text:
    """No `:word:` becomes an emoji: it may be a name."""
    text = content.copy() if isinstance(content, Text) else Text.from_markup(printable(str(content or "")), emoji=False)
    text.style = style or text.style
    text.expand_tabs(8)
    return text


def _breaks(line: str, width: int) -> list[int]:
    breaks, at, used = [], 0, 0
    for word in re.findall(r"\S+\s*|\s+", line):
        for part in _parts(word, width):
            if used and used + cell_len(part.rstrip()) > width:
                breaks.append(at)
                used = 0
            at, used = at + len(part), used + cell_len(part)
    return breaks


def _parts(word: str, width: int) -> Iterator[str]:
    if cell_len(word.rstrip()) <= width:
        yield word
        return
    for piece in re.findall(r"[/_.,=-]*[^/_.,=-]+[/_.,=-]*|[/_.,=-]+", word):
        yield from [piece] if cell_len(piece.rstrip()) <= width else chop_cells(piece, width)


def _cut(widths: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    """The widest ones narrower, one cell at a time, until all have room or none is above its floor. Of equal ones it is
    the one that was the widest."""
    before, widths = widths, list(widths)
    while sum(widths) > room:
        above = [n for n, (width, floor) in enumerate(zip(widths, floors, strict=True)) if width > floor]
        if not above:
            break
        widths[max(above, key=lambda n: (widths[n], before[n]))] -= 1
    return widths


def _end_of(path: str, width: int) -> str:
    folders = path.split("/")
    for left_out in range(1, len(folders)):
        if cell_len(path) <= width:
            break
        path = "/".join(["…", *folders[left_out:]])
    return path
