"""What people read, in English and Russian: SIGHTLINE_LANG is `en` (unless set) or `ru`. Codes never change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum

from producer_client.contract import Answer, Reason


class Language(StrEnum):
    EN = "en"
    RU = "ru"

    @classmethod
    def chosen(cls) -> Language:
        """By SIGHTLINE_LANG, also in the forms `ru_RU.UTF-8` and `ru-RU`; English for everything else."""
        return cls.RU if os.environ.get("SIGHTLINE_LANG", "").lower().startswith("ru") else cls.EN

    def pick(self, texts: Mapping[Language, str]) -> str:
        return texts[self]


REASONS: Mapping[Reason, Mapping[Language, str]] = {
    Reason.EMPTY_INDEX: {
        Language.EN: "no photo is in the index yet",
        Language.RU: "в индексе пока нет ни одного фото",
    },
    Reason.NOTHING_SIMILAR: {
        Language.EN: "nothing known looks like it",
        Language.RU: "ничего похожего не известно",
    },
    Reason.NO_TRUSTED_EVIDENCE: {
        Language.EN: "similar photos are known, but none with coordinates to trust",
        Language.RU: "похожие фото есть, но ни у одного нет надёжных координат",
    },
    Reason.TOO_FEW_WITNESSES: {
        Language.EN: "too few photos speak for this place",
        Language.RU: "об этом месте говорит слишком мало фото",
    },
    Reason.NEIGHBOURS_DISAGREE: {
        Language.EN: "similar photos lie in different places",
        Language.RU: "похожие фото сняты в разных местах",
    },
}


def explained(answer: Answer, language: Language | None = None) -> str:
    """Why there is no answer, or what it rests on, in a sentence for people."""
    language = language or Language.chosen()
    if answer.reason is not None:
        return language.pick(REASONS[answer.reason])
    count, radius_m = len(answer.evidence), answer.radius_m or 0.0
    return language.pick(
        {
            Language.EN: f"{count} trusted photos agree within {radius_m:.0f} m",
            Language.RU: f"надёжных фото, согласных в пределах {radius_m:.0f} м: {count}",
        }
    )
