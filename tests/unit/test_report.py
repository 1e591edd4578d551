"""The exam's page: what it says, that nothing in it is taken for markup, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from producer_client.contract import Reason
from tests.examined import METRE, question
from worker.commands.exam import exam_table
from worker.place.exam import Exam, Examined, Witnessed
from worker.place.measures import FIGURES, measured
from worker.place.paired import compared
from worker.report.chart import HEIGHT, WIDTH, Axis, Chart, round_below, steps_of
from worker.report.elements import element, written
from worker.report.map import FOOT, MARGIN, drawn, framed
from worker.report.page import html
from worker.report.wording import figure_meaning, figure_name, metres, percent, reason_said, region_said
from worker.report.worst import SHOWN, pictured, worst

RIGHT_M = 50.0
VOID = {"meta", "img", "br", "link", "input", "hr"}
#: What a file may be called, and a page must show as it is.
NASTY = """Лето/<script>alert("1")</script>&amp;'"><img src=x onerror=y>.jpg"""


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def said(self) -> str:
        return " ".join(self.texts)


def exam_of(examined: Sequence[Examined], **other: Any) -> Exam:
    given: dict[str, Any] = {
        "made_at": "2026-11-28T02:00:00Z",
        "seconds": 12.5,
        "model_key": "model",
        "generation": 7,
        "seq": 99,
        "sample": 20,
        "seed": 1,
        "figures": measured(examined, right_m=RIGHT_M),
        "settings": {"SIGHTLINE_K": 8},
    }
    return Exam(**(given | other))


def page_of(*examined: Examined, thumbnails: dict[int, bytes | str] | None = None, **other: Any) -> Page:
    return Page(html(exam_of(examined, **other), examined, thumbnails or {}))


MANY = [question(at, confidence=0.6 + at / 100, off_m=10.0 if at % 4 else 3_000.0, density=at) for at in range(30)] + [
    question(at, seen=False, confidence=0.3, off_m=3_000.0, located=at < 2) for at in range(30)
]


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "en")


def test_it_says_first_what_matters() -> None:
    page = page_of(*MANY)

    assert "Exam of generation 7" in page.said
    assert page.said.index("of the given answers are right") < page.said.index("All figures")
    assert "69 %".replace(" ", "\N{NO-BREAK SPACE}") in page.said
    assert "22 of 32; chance leaves it between 51 % and 82 %".replace(" %", "\N{NO-BREAK SPACE}%") in page.said


def test_what_is_counted_as_a_place_is_said_on_the_page_and_under_the_table() -> None:
    said = "A place is what lies within 50 m of one photo.".replace("50 m", "50\N{NO-BREAK SPACE}m")

    assert said in page_of(*MANY).said
    assert exam_table(exam_of(MANY)).caption == said


def test_every_figure_is_in_the_table_with_what_it_means() -> None:
    page = page_of(*MANY)

    for name in FIGURES:
        assert figure_name(name) in page.said, name
        assert figure_meaning(name) in page.said, name
    assert len({figure_name(name) for name in FIGURES}) == len(FIGURES)


def test_it_is_well_formed_and_has_headings_in_order() -> None:
    page = page_of(*MANY)

    assert page.open == []
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_picture_and_plot_says_what_it_is() -> None:
    page = page_of(*MANY, thumbnails={0: b"\xff\xd8"})

    plots = [attributes for attributes in page.named("svg") if attributes.get("aria-hidden") != "true"]
    assert len(plots) == 6
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)
    assert {attributes["alt"] for attributes in page.named("img")} == {"asked about: photo 0"}
    assert all(attributes["scope"] in ("row", "col") for attributes in page.named("th"))


def test_it_needs_nothing_but_itself() -> None:
    page = page_of(*MANY, thumbnails={0: b"\xff\xd8"})

    assert page.named("script") == page.named("link") == page.named("iframe") == []
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href", "srcset") or (value or "").startswith("data:image/jpeg;base64,")
    [policy] = [tag["content"] for tag in page.named("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_whatever_a_photo_is_called_is_shown_and_never_markup() -> None:
    asked = question(
        1,
        off_m=9_000.0,
        path=NASTY,
        evidence=Witnessed(2, 9_000.0, NASTY),
        contrary=Witnessed(3, 4.0, NASTY),
        provenance=NASTY,
    )
    silent = question(4, located=False, reason=NASTY)

    page = page_of(asked, silent, thumbnails={1: NASTY}, model_key=NASTY, made_at=NASTY, settings={NASTY: NASTY})

    assert page.texts.count(NASTY) >= 8
    assert page.named("script") == page.named("img") == []


@pytest.mark.parametrize("odd", ["\x00", "\x1b[31m", "\udcff", "\ufffe"])
def test_what_html_has_no_form_for_is_replaced(odd: str) -> None:
    text = html(exam_of(MANY, model_key=f"a{odd}b"), MANY, {})

    assert text.encode()
    assert odd not in text
    assert "a\N{REPLACEMENT CHARACTER}" in text


def test_a_photo_that_cannot_be_read_says_so() -> None:
    wrong = question(1, off_m=9_000.0, evidence=Witnessed(2, 9_000.0), contrary=Witnessed(3, 4.0))

    page = page_of(wrong, thumbnails={1: b"\xff\xd8picture", 2: "the file is gone"})

    [shown] = page.named("img")
    assert base64.b64decode((shown["src"] or "").partition(",")[2]) == b"\xff\xd8picture"
    assert "the file is gone" in page.said
    assert "this photo cannot be shown" in page.said


def test_the_worst_are_the_confident_wrong_ones_and_then_the_farthest_right_ones() -> None:
    asked = [
        question(1, confidence=0.99, off_m=40.0),
        question(2, confidence=0.7, off_m=9_000.0),
        question(3, confidence=0.9, off_m=200.0),
        question(4, confidence=0.9, off_m=5_000.0, seen=False),
        question(5, confidence=0.99, off_m=20.0),
        question(6, confidence=0.99, off_m=9_000.0, located=False),
    ]

    assert [case.photo_id for case in worst(asked, RIGHT_M)] == [4, 3, 2, 1, 5]
    assert len(worst([question(at) for at in range(50)], RIGHT_M)) == SHOWN


def test_thumbnails_are_wanted_of_the_worst_alone() -> None:
    asked = [
        question(1, off_m=9_000.0, path="a.jpg", evidence=Witnessed(8, 9_000.0, "b.jpg"), contrary=Witnessed(9, 1.0)),
        question(2, located=False, path="c.jpg"),
    ]

    assert pictured(asked, RIGHT_M) == {1: "a.jpg", 8: "b.jpg", 9: None}


def test_an_exam_that_lacks_figures_says_so_at_the_top() -> None:
    page = page_of(question(1, off_m=None, reason="nothing_similar"), generation=None)

    assert "Exam of the index that has no generation yet" in page.said
    assert page.said.index("This exam has failed") < page.said.index("In short")
    assert "right, of the given answers: no answer was given" in page.said
    assert "Precision and recall: no best place is right, and there is no recall without one" in page.said
    assert "This exam has failed" not in page_of(*MANY).said


def test_an_exam_of_nothing_is_a_page_too() -> None:
    assert "nothing was asked" in page_of().said


def test_abstentions_are_told_by_reason_in_words_and_code() -> None:
    page = page_of(
        *MANY, question(90, off_m=None, reason="nothing_similar"), question(91, off_m=None, reason="of_later")
    )

    assert "nothing known looks like it" in page.said
    assert "nothing_similar" in page.texts
    assert page.texts.count("of_later") == 2, "a reason of a later release is told by its code"


def test_a_comparison_says_what_is_clearly_worse() -> None:
    good = [question(at) for at in range(100)]
    bad = [question(at, off_m=10.0 if at > 30 else 9_000.0) for at in range(100)]

    def said(before: list[Examined], after: list[Examined]) -> str:
        found = compared(before, after, right_m=RIGHT_M)
        return Page(html(exam_of(after), after, {}, differences=found)).said

    assert "clearly worse" in said(good, bad)
    assert "\N{MINUS SIGN}31.0" in said(good, bad)
    assert "clearly worse" not in said(bad, good)
    assert "Compared" not in page_of(*MANY).said


def test_it_is_the_same_page_in_russian(monkeypatch: pytest.MonkeyPatch) -> None:
    english = page_of(*MANY)
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    russian = page_of(*MANY)

    assert [tag for tag, _ in russian.tags] == [tag for tag, _ in english.tags]
    assert russian.named("html") == [{"lang": "ru"}]
    names = {"Recall", "AURC", "AUC", "PR", "ECE", "SIGHTLINE_K", "exif_gps", "unverified", "model", "seq", "T", "Z"}
    latin = set(re.findall("[A-Za-z_]+", " ".join(russian.texts[2:])))
    assert latin <= names, "English that is left"


def test_the_order_of_what_was_kept_does_not_matter() -> None:
    """Postgres keeps the keys of JSON in an order of its own."""
    kept = exam_of(MANY).to_json()
    kept["figures"]["overall"]["figures"] = dict(reversed(kept["figures"]["overall"]["figures"].items()))
    kept["figures"]["by"] = {kind: dict(reversed(parts.items())) for kind, parts in kept["figures"]["by"].items()}

    assert html(Exam.from_json(kept), MANY, {}) == html(exam_of(MANY), MANY, {})


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 m"), (4.96, "5 m"), (12.34, "12.3 m"), (130.4, "130 m"), (999.6, "1 km"), (23_600.0, "23.6 km")],
)
def test_distances_have_three_digits(value: float, said: str) -> None:
    assert metres(value).replace("\N{NO-BREAK SPACE}", " ") == said


def test_nearly_all_is_not_all() -> None:
    assert [percent(share).replace("\N{NO-BREAK SPACE}", " ") for share in (1.0, 0.996, 0.5, 0.004, 0.0)] == [
        "100 %",
        "99.6 %",
        "50 %",
        "0.4 %",
        "0 %",
    ]


def test_regions_are_said_with_their_hemispheres() -> None:
    assert region_said("-33.5 -070.6").replace("\N{NO-BREAK SPACE}", " ") == "33.5° S, 70.6° W"


def test_every_reason_is_said() -> None:
    assert all(reason_said(reason) for reason in Reason)


@pytest.mark.parametrize(
    "points",
    [
        [(10.0, 179.9), (10.0, -179.9)],
        [(60.0, 0.0), (60.2, 0.1), (59.9, -0.3)],
        [(90.0, 0.0), (89.9, 90.0)],
        [(-33.0, 151.0), (64.0, -22.0), (40.0, -74.0)],
        [(5.0, 5.0)],
    ],
)
def test_a_map_holds_all_its_points(points: list[tuple[float, float]]) -> None:
    frame = framed(points)

    for point in points:
        x, y = frame.at(point)
        assert MARGIN - 1 <= x <= 720 - MARGIN + 1
        assert MARGIN - 1 <= y <= frame.height - MARGIN + 1


def test_photos_on_both_sides_of_the_date_line_lie_side_by_side() -> None:
    frame = framed([(10.0, 179.9), (10.0, -179.9), (10.05, 180.0)])

    (west, _), (east, _), (middle, north) = (frame.at(point) for point in [(10, 179.9), (10, -179.9), (10.05, 180)])
    assert west < middle < east
    assert north < frame.height / 2, "north is up"
    assert east - west == pytest.approx(0.2 * 111_195 * 0.9848 * frame.scale, rel=1e-3)


def test_the_bar_of_a_map_is_as_long_as_it_says() -> None:
    far = 2_000 * METRE
    shown = drawn([question(1, at=(0.0, 0.0)), question(2, at=(far, 0.0))], RIGHT_M)
    assert shown is not None
    text = written(shown)

    [(left, right)] = re.findall(r'd="M([\d.]+) [\d.]+v4H([\d.]+)v-4"', text)
    scale = framed([(0.0, 0.0), (far, 0.0)]).scale
    assert "500\N{NO-BREAK SPACE}m" in text
    assert float(right) - float(left) == pytest.approx(500 * scale, abs=0.2)
    assert float(right) <= 720
    assert FOOT > 20


def test_a_map_tells_right_wrong_and_silent_apart_by_form() -> None:
    shown = drawn(
        [
            question(1),
            question(2, off_m=9_000.0),
            question(3, located=False),
            question(4, seen=False, off_m=9_000.0),
            question(5, seen=False, located=False),
        ],
        RIGHT_M,
    )
    assert shown is not None
    text = written(shown)

    assert "1 right, 2 wrong, 1 not answered" in text
    assert text.count('class="wrong mark"') == 3, "two on the map, one in the key"
    assert text.count('class="right mark"') == text.count('class="abstained mark"') == 2
    assert drawn([], RIGHT_M) is None


def test_a_chart_puts_values_where_its_axes_say() -> None:
    chart = Chart(Axis("x", 1.0, 1_000.0, [], by_log=True), Axis("y", 0.0, 2.0, []))
    left, bottom = chart.at(1.0, 0.0)
    right, top = chart.at(1_000.0, 2.0)

    assert 0 < left < right <= WIDTH
    assert 0 <= top < bottom <= HEIGHT
    assert chart.at(10.0, 1.0) == pytest.approx((left + (right - left) / 3, (top + bottom) / 2))
    assert chart.at(0.01, 9.0) == (left, top), "what lies beyond is drawn at the end"


@pytest.mark.parametrize(
    ("most", "steps"), [(31, [0, 5, 10, 15, 20, 25, 30]), (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, [0])]
)
def test_ticks_are_round_numbers(most: float, steps: list[float]) -> None:
    assert steps_of(most) == pytest.approx(steps)


def test_round_below_is_one_two_or_five() -> None:
    assert [round_below(value) for value in (0.019, 1.0, 4.99, 5.0, 9_999.0)] == pytest.approx([0.01, 1, 2, 5, 5_000])


def test_children_and_texts_keep_their_order() -> None:
    made = element("p", "a", element("b", "c"), "d", None, [element("i"), "e"], class_="x", aria_label=None)

    assert written(made) == '<!DOCTYPE html>\n<p class="x">a<b>c</b>d<i></i>e</p>\n'
