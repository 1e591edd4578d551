"""Settings of what answers tell, and to whom; and of the record of who has asked. All of it is off unless it is set.

A part of worker.settings, which says how settings are read.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from producer_client.errors import quoted
from worker import areas, listed
from worker.areas import Area

#: Producers that no other pair names.
OTHERS = "*"
#: Decimals of a degree that coordinates may be rounded to: 0 is about 111 km, 5 about a metre.
FEWEST, MOST = 0, 5


def _areas(value: object) -> object:
    found = listed.parts(value)
    return tuple(areas.read(str(part)) for part in found) if isinstance(found, tuple | list) else found


def _decimals(value: object) -> object:
    found = listed.pairs(value)
    if not isinstance(found, dict):
        return found
    for producer, decimals in found.items():
        if not producer or not str(decimals).isdecimal() or not FEWEST <= int(decimals) <= MOST:
            raise ValueError(
                f"{quoted(f'{producer}={decimals}')} is not PRODUCER=DECIMALS: the id of a key, or * for all others, "
                f"and the decimals of a degree that are told, {FEWEST} to {MOST}"
            )
    if found and OTHERS not in found:
        raise ValueError(
            "it does not say what all others are told, those without a signature among them: add *=DECIMALS, of which "
            f"{MOST} is about a metre"
        )
    return {producer: int(decimals) for producer, decimals in found.items()}


class DisclosureSettings(BaseSettings):
    model_config = SettingsConfigDict(defer_build=True)

    rounded_for: Annotated[dict[str, int], NoDecode, BeforeValidator(_decimals)] = Field(default={})
    """Decimals of a degree that coordinates of replies are rounded to, as `producer=decimals` pairs: `web=2,*=4`. A
    producer is the id of the key that a message was signed with; `*`, which must be there, are all others, those whose
    messages are not signed among them. 2 decimals are about a kilometre, 3 a hundred metres, 5 one metre. Addresses and
    metadata are left out then, and `near` is refused. Empty rounds nothing."""
    withheld_areas: Annotated[tuple[Area, ...], NoDecode, BeforeValidator(_areas)] = ()
    """Where nothing is told: boxes as `WEST SOUTH EAST NORTH` (one across the antimeridian has the greater number
    first) and circles as `LAT LON METRES`, with commas between. A photo that would be located there, borders included,
    is not (`withheld`), and found photos of there come without position, address and metadata. Empty withholds
    nothing."""
    audit_days: int = Field(default=0, ge=0, le=36_500)
    """Days for which it is recorded who has searched or asked where a photo was taken, with its hash and what was told
    (`sightline audit`). What cannot be recorded is not answered. 0 records nothing."""
