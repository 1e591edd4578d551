"""The exam's page in a real browser: nothing asked of anybody, nothing wrong in it, and it fits a phone."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.examined import question
from worker.place.exam import Exam, Examined, Witnessed
from worker.place.measures import measured
from worker.place.paired import compared
from worker.report.page import html
from worker.report.worst import pictured

RIGHT_M = 50.0
NASTY = """Лето/<script>document.title="taken"</script>"'>.jpg"""
LONG = "a" * 200 + ".jpg"
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine: `make browser` installs Debian's")
    with sync_playwright() as playwright:
        # As root, in a container as in CI, Chromium's own sandbox cannot be had.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@dataclass
class Shown:
    """A page that is open, with what it has said and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def show(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shown]]:
    """Opens the page of an exam in a language, at a width."""
    pages = []

    def opened(examined: list[Examined], *, language: str, width: int, dark: bool = False) -> Shown:
        monkeypatch.setenv("SIGHTLINE_LANG", language)
        path = tmp_path / "exam.html"
        path.write_text(page_of(examined))
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        pages.append(page)
        shown = Shown(page)
        page.on("console", lambda message: shown.said.append(message.text))
        page.on("pageerror", lambda error: shown.said.append(str(error)))
        page.on("request", lambda request: shown.asked.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        return shown

    yield opened
    for page in pages:
        page.close()


def page_of(examined: list[Examined]) -> str:
    exam = Exam(
        "2026-11-28T02:00:00Z", 12.5, "a-very-long-model-key/" * 5, 7, 99, 30, 1, measured(examined, right_m=RIGHT_M),
        {"SIGHTLINE_RUNGS": "places,geometry,conflicts,calibration"},
    )  # fmt: skip
    names = [name for name in pictured(examined, RIGHT_M) if name % 5]
    before = [question(one.photo_id, seen=one.seen, off_m=1.0, at=(one.lat, one.lon)) for one in examined]
    return html(
        exam, examined, dict.fromkeys(names, picture()), differences=compared(before, examined, right_m=RIGHT_M)
    )


def picture() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (240, 180), (90, 120, 60)).save(made, "JPEG")
    return made.getvalue()


def asked_about(count: int = 40) -> list[Examined]:
    return [
        question(
            at,
            confidence=0.5 + at / 100 if seen else 0.2,
            off_m=10.0 if seen and at % 4 else 3_000.0,
            seen=seen,
            located=seen or at == 3,
            at=(-17.0 + at / 500, 179.99 if at % 2 else -179.99),
            path=NASTY if at % 2 else LONG,
            evidence=Witnessed(100 + at, 3_000.0, NASTY, 0.91, 120),
            contrary=Witnessed(200 + at, 4.0, LONG, 0.9, 30),
        )
        for at in range(count)
        for seen in (True, False)
    ]


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_whole_in_a_browser(show: Callable[..., Shown], language: str, width: int, tmp_path: Path) -> None:
    shown = show(asked_about(), language=language, width=width)

    assert shown.said == []
    assert [url for url in shown.asked if not url.startswith("data:")] == [(tmp_path / "exam.html").as_uri()]
    assert shown.value("document.title") != "taken"
    assert shown.value("document.documentElement.scrollWidth") == width, "nothing sticks out to the side"
    assert shown.value("[...document.images].every(image => image.complete && image.naturalWidth === 240)")
    assert shown.value("document.images.length") > 20
    assert shown.value("document.querySelectorAll('svg.plot circle').length") >= 30
    assert NASTY in shown.value("document.body.innerText")


#: Texts that stick out of what holds them, or lie upon one another within a plot.
CROWDED = """
() => [...document.querySelectorAll('svg.plot')].flatMap(plot => {
  const frame = plot.getBoundingClientRect();
  const boxes = [...plot.querySelectorAll('text:not(.count)')]
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  const out = boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([said]) => `cut off: ${said}`);
  const upon = boxes.flatMap(([said, a], at) => boxes.slice(at + 1)
    .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    .map(([other]) => `${said} on ${other}`));
  return [...out, ...upon];
})
"""


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_no_text_of_a_plot_is_cut_off_or_lies_upon_another(
    show: Callable[..., Shown], language: str, width: int
) -> None:
    assert show(asked_about(), language=language, width=width).value(CROWDED) == []
    assert show(asked_about(2), language=language, width=width).value(CROWDED) == []
    near = [question(at, confidence=0.9, off_m=float(at), seen=True, at=(56.1, 10.2)) for at in range(1, 20)]
    assert show(near, language=language, width=width).value(CROWDED) == []


#: Least contrast of a text with what lies behind it, by WCAG 2.2's formula.
CONTRAST = """
() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = node => { for (let at = node; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor; if (!/, 0\\)$/.test(colour)) return colour; }
    return 'rgb(255,255,255)'; };
  return Math.min(...[...document.querySelectorAll('h1,h2,h3,p,span,small,td,th,figcaption,strong,li,text:not(.count)')]
    .filter(node => node.textContent.trim()).map(node => { const style = getComputedStyle(node);
      const [a, b] = [light(node.tagName === 'text' ? style.fill : style.color), light(behind(node))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
}
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_light_and_dark(show: Callable[..., Shown], dark: bool) -> None:
    shown = show(asked_about(), language="en", width=DESK, dark=dark)

    assert (shown.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)") is dark
    assert shown.value(CONTRAST) >= 4.5


def test_it_prints_on_white_whatever_the_screen(show: Callable[..., Shown]) -> None:
    shown = show(asked_about(), language="en", width=DESK, dark=True)

    shown.page.emulate_media(media="print")

    assert shown.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.value(CONTRAST) >= 4.5
    assert shown.page.pdf(format="A4").startswith(b"%PDF")


def test_an_exam_that_failed_is_a_page_too(show: Callable[..., Shown]) -> None:
    shown = show([question(1, off_m=None, reason="nothing_similar")], language="ru", width=PHONE)

    assert shown.said == []
    assert shown.value("document.documentElement.scrollWidth") == PHONE
    assert shown.page.get_by_role("alert").is_visible()
