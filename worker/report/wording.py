"""How the page says numbers, places and codes, in the language that is set. Knows no HTML."""

from __future__ import annotations

from producer_client import language as of_client
from producer_client.language import Language, to_say
from worker.place.exam import Figure
from worker.words import say

#: Between a number and its unit: never parted by the end of a line.
NARROW, NBSP = "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"

#: Figures by name: what they are called, and what they say. Groups of figures are numbered by `recall_name`.
NAMES = {
    "answered_seen": (
        to_say("answered, of known places"),
        to_say("share of the photos whose place other photos show that got an answer"),
    ),
    "right_of_given": (
        to_say("right, of the given answers"),
        to_say("share of all given answers that are near the truth; those about places left out never are"),
    ),
    "false_answers_unseen": (
        to_say("false answers, of places left out"),
        to_say("share of the photos that got an answer although every photo of their place had been left out"),
    ),
    "radius_coverage": (
        to_say("truth within the radius"),
        to_say("share of the right answers whose stated radius holds the true position"),
    ),
    "auc_pr": (
        to_say("AUC-PR of the confidence"),
        to_say("average precision of the confidence in telling right places from wrong ones; 1 is perfect"),
    ),
    "aurc": (
        to_say("AURC"),
        to_say("area under the risk-coverage curve: share of wrong ones among the most confident, averaged; 0 is best"),
    ),
    "ece": (
        to_say("calibration error (ECE)"),
        to_say("how far the confidence is, on average, from how often the radius holds the truth"),
    ),
    "ece_right": (
        to_say("calibration error, by right answers"),
        to_say("how far the confidence is, on average, from how often the answer is right"),
    ),
    "brier": (
        to_say("Brier score"),
        to_say("mean square of the confidence's distance from what came true; 0 is best"),
    ),
}


def figure_name(name: str) -> str:
    if name in NAMES:
        return say(NAMES[name][0])
    kind, _, rest = name.partition("_")
    if kind == "recall":
        _, k, within = rest.split("_")
        return say("Recall@{k} within {distance}", k=k, distance=_distance(within))
    if kind == "within":
        return say("answered within {distance}, of known places", distance=_distance(rest))
    return say("error of the answers, {percentile} % are below", percentile=rest.rpartition("p")[2])


def figure_meaning(name: str) -> str:
    if name in NAMES:
        return say(NAMES[name][1])
    if name.startswith("recall"):
        return say("share of the known places with such a photo among the first found, whatever became of it")
    if name.startswith("within"):
        return say("an abstention counts as a miss")
    return say("of all given answers, those about places left out among them")


def figure_value(name: str, figure: Figure | None) -> str:
    """A dash where there is none."""
    if figure is None or figure.value is None:
        return "\N{EM DASH}"
    if name.startswith("error_m"):
        return metres(figure.value)
    return number(figure.value, 3) if name in ("auc_pr", "aurc", "ece", "ece_right", "brier") else percent(figure.value)


def reason_said(code: str) -> str:
    """Why nothing was answered; of a reason that this release does not know, its code."""
    known = {reason.value: text for reason, text in of_client.REASONS.items()}
    return of_client.say(known[code]) if code in known else code


def number(value: float, digits: int = 0) -> str:
    said = f"{value:,.{digits}f}".replace(",", NARROW)
    return said.replace(".", ",") if Language.chosen() is Language.RU else said


def percent(share: float) -> str:
    """Whole percents, but of what is nearly none or all a digit more: 99.6 % is not all."""
    whole = round(share * 100)
    digits = 1 if share not in (0, 1) and (whole <= 1 or whole >= 99) else 0
    return f"{number(share * 100, digits)}{NBSP}%"


def points(share: float) -> str:
    """A difference of shares, in percentage points."""
    sign = "+" if share > 0 else "\N{MINUS SIGN}" if share < 0 else ""
    return sign + number(abs(share) * 100, 1)


def metres(value: float) -> str:
    """Three digits at the most, and kilometres from 1,000 m on."""
    if value >= 999.5:
        return say("{km} km", km=_short(value / 1e3)).replace(" ", NBSP)
    return say("{m} m", m=_short(value)).replace(" ", NBSP)


def place_meaning(right_m: float) -> str:
    """What is counted wherever an exam says "places"; photos farther apart than that may still show one sight."""
    return say("A place is what lies within {right_m} of one photo.", right_m=metres(right_m))


def _short(value: float) -> str:
    return number(value, 0 if value >= 100 or round(value, 1) == round(value) else 1)


def region_said(name: str) -> str:
    """ "+55.5 -000.1" as people say it."""
    lat, lon = map(float, name.split())
    return f"{latitude(lat, 1)}, {longitude(lon, 1)}"


def latitude(degrees: float, digits: int = 2) -> str:
    side = say("N") if degrees >= 0 else say("S")
    return f"{number(abs(degrees), digits)}°{NBSP}{side}"


def longitude(degrees: float, digits: int = 2) -> str:
    side = say("E") if degrees >= 0 else say("W")
    return f"{number(abs(degrees), digits)}°{NBSP}{side}"


def _distance(said: str) -> str:
    return metres(float(said[:-2]) * 1e3 if said.endswith("km") else float(said[:-1]))
