"""HTML and SVG as trees of elements, which the standard library writes out: whatever a text holds, it stays text.

Knows nothing of what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "Element | str | Iterable[Element | str | None] | None"

#: What HTML has no form for: control characters but for white space, and halves of a surrogate pair, as names of files
#: have that are no UTF-8.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """`class_` stands for class, `stroke_width` for stroke-width. What is None, attribute or child, is left out."""
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), as_text(f"{value:.2f}" if isinstance(value, float) else value))
    for child in children:
        for one in [child] if child is None or isinstance(child, str | Element) else child:
            if isinstance(one, Element):
                made.append(one)
            elif one is not None and len(made):
                made[-1].tail = (made[-1].tail or "") + as_text(one)
            elif one is not None:
                made.text = (made.text or "") + as_text(one)
    return made


def as_text(value: object) -> str:
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(value))


def written(root: Element) -> str:
    """A whole HTML document."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"
