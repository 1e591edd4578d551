"""The exam's worst cases: which they are, and each as the asked photo beside those that spoke for it and against it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from worker.place.exam import Examined, Witnessed
from worker.report.elements import element
from worker.report.wording import metres, number, percent
from worker.words import say

#: Cases that are shown: with three pictures of some 10 kB each the page stays below half a megabyte.
SHOWN = 12

#: A thumbnail as a JPEG, or why there is none in the language that is set, by photo id.
Thumbnails = Mapping[int, bytes | str]


def worst(examined: Sequence[Examined], right_m: float) -> list[Examined]:
    """Of the given answers the wrong ones, the most confident first, then the right ones that are the farthest off."""

    def badness(question: Examined) -> tuple[bool, float, float, int]:
        right = question.right(right_m)
        return right, 0.0 if right else -(question.confidence or 0.0), -(question.error_m or 0.0), question.photo_id

    return sorted((question for question in examined if question.located), key=badness)[:SHOWN]


def pictured(examined: Sequence[Examined], right_m: float) -> dict[int, str | None]:
    """Photos of the worst cases, of which the page wants thumbnails, with their paths."""
    found: dict[int, str | None] = {}
    for question in worst(examined, right_m):
        found[question.photo_id] = question.path
        for witness in (question.evidence, question.contrary):
            if witness is not None:
                found[witness.photo_id] = witness.path
    return found


def cards(examined: Sequence[Examined], right_m: float, thumbnails: Thumbnails) -> list[Element]:
    return [_card(question, right_m, thumbnails) for question in worst(examined, right_m)]


def _card(question: Examined, right_m: float, thumbnails: Thumbnails) -> Element:
    right = question.right(right_m)
    verdict = say(
        "{distance} off, confidence {confidence}, radius {radius}",
        distance=metres(question.error_m or 0.0),
        confidence=percent(question.confidence or 0.0),
        radius=metres(question.radius_m or 0.0),
    )
    tags = [element("span", say("right") if right else say("wrong"), class_=f"tag {'good' if right else 'bad'}")]
    if not question.seen:
        tags.append(element("span", say("its place was left out"), class_="tag"))
    if question.held:
        tags.append(element("span", say("truth within the radius"), class_="tag"))
    pictures = [_picture(say("asked about"), question.photo_id, question.path, "", thumbnails)]
    for name, witness in ((say("evidence"), question.evidence), (say("speaks against it"), question.contrary)):
        if witness is not None:
            pictures.append(_picture(name, witness.photo_id, witness.path, _testimony(witness), thumbnails))
    return element(
        "article",
        element("h3", verdict),
        element("p", tags, class_="tags"),
        element("div", pictures, class_="pictures"),
        class_="case",
    )


def _picture(name: str, photo_id: int, path: str | None, more: str, thumbnails: Thumbnails) -> Element:
    found = thumbnails.get(photo_id, "")
    title = say("photo {photo_id}", photo_id=photo_id)
    shown = (
        element("img", src=f"data:image/jpeg;base64,{base64.b64encode(found).decode()}", alt=f"{name}: {title}")
        if isinstance(found, bytes)
        else element("p", found or say("this photo cannot be shown"), class_="absent")
    )
    return element(
        "figure",
        shown,
        element(
            "figcaption",
            element("strong", name),
            element("span", title),
            element("span", path, class_="path") if path else None,
            element("span", more) if more else None,
        ),
    )


def _testimony(witness: Witnessed) -> str:
    said = [say("{distance} from the truth", distance=metres(witness.away_m))]
    if witness.similarity is not None:
        said.append(say("similarity {similarity}", similarity=number(witness.similarity, 2)))
    if witness.inliers is not None:
        said.append(say("inliers: {inliers}", inliers=witness.inliers))
    return ", ".join(said)
