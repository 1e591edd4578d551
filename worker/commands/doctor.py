"""`sightline doctor`. Each of its checks returns a sentence, or raises one that says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.markup import escape

from producer_client import SightlineError
from producer_client.contract import Code
from producer_client.language import to_say
from producer_client.reach import shown
from worker.broker import connected, parking, refuses_writes
from worker.commands.backends import backends, print_backends
from worker.commands.connections import open_client, open_store
from worker.commands.tables import Table
from worker.commands.terminal import UNWELL, AsJson, err, out, show
from worker.errors import BadGeneration, Permanent, WorkerError
from worker.roots import faults
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import in_language, say, told

#: Seconds to wait for a server or a worker.
PATIENCE_S = 5


def doctor(as_json: AsJson = False) -> None:
    """Check settings, broker, database, model, index and workers, and say what to do."""
    settings = load_settings()
    # The model alone takes minutes where it is measured for the first time.
    with err.status("") as status:
        checks = list(_checked(settings, lambda name: status.update(say("checking: {check}", check=say(name)))))
    rows = backends(settings)

    def table() -> None:
        out.print(checks_table(checks))
        print_backends(rows)

    told: dict[str, dict[str, Any]] = {name: {"ok": fine, "message": words} for name, fine, words in checks}
    told["model"]["backends"] = [asdict(row) for row in rows]
    show(as_json, told, table)
    raise typer.Exit(0 if all(fine for _, fine, _ in checks) else UNWELL)


def checks_table(checks: Sequence[tuple[str, bool, str]]) -> Table:
    """checks: (name, whether all is well, a sentence)."""
    table = Table(say("check"), "", show_lines=True)
    table.add_column(say("what it says"))
    for name, fine, words in checks:
        table.add_row(say(name), say("[green]ok[/]") if fine else say("[red]no[/]"), escape(words))
    return table


def broker(settings: Settings) -> str:
    with connected(url := settings.broker_url, silent_s=PATIENCE_S) as connection:
        why = refuses_writes(connection)
    if why:
        raise _Unwell(f"{shown(url)}: {say(why)}")
    return say("{broker} answers", broker=shown(url))


def keys(settings: Settings) -> str:
    """Strangers beside our keys are a warning, work that nobody does is a fault."""
    from worker.keys import beside

    found = beside(settings.broker_url, settings.key_prefix, patience_s=PATIENCE_S)
    for place in found:
        if place.left:
            words = to_say(
                "messages for Sightline lie in database {database} where workers of these settings do not look: "
                "{left}. They are of clients with another SIGHTLINE_BROKER_URL or key prefix, as those of an earlier "
                "release: database 0, no prefix. Tell the clients, and run `sightline worker --queues "
                "interactive,bulk,index` with these two set as there until no message is left (deploy/README.md)."
            )
            left = ", ".join(f"{name} {count}" for name, count in place.left.items())
            raise _Unwell(say(words, database=place.database, left=left))
    others = [name for place in found for name in place.others]
    if others:
        words = to_say(
            "ours begin with {prefix}. Beside them, in database {database}, lie those of others, as {others}: what "
            "clears that database (`flushdb`) takes our messages with it. Give Sightline one of its own: the number at "
            "the end of SIGHTLINE_BROKER_URL."
        )
        return say(words, prefix=settings.key_prefix, database=found[0].database, others=", ".join(others))
    if not settings.key_prefix:
        return say("without a prefix (SIGHTLINE_KEY_PREFIX is empty), for clients of releases before it")
    return say("all begin with {prefix}", prefix=settings.key_prefix)


def queues(settings: Settings) -> str:
    with parking(settings) as parked:
        count = parked.count()
    if count:
        raise _Unwell(say("{count} items in the queues could not be read: `sightline parked` shows them.", count=count))
    return say("nothing lay in them that could not be read")


def database(settings: Settings) -> str:
    from worker.storage.migrate import revisions

    with open_store(settings) as store, store.database.guard():
        names = {"schema": settings.db_schema, "photos_table": settings.photos_table}
        there, wanted = revisions(store.database.engine, **names)
    if there != wanted:
        behind = to_say("at revision {there}, this release needs {wanted}. Run `sightline migrate`.")
        raise _Unwell(say(behind, there=there, wanted=wanted))
    return say("answers, at revision {there}", there=there)


def photos_table(settings: Settings) -> str:
    with open_store(settings) as store:
        store.rows.table  # noqa: B018  # its columns are looked at
    return say("{table} has what is needed", table=settings.photos_table)


def model(settings: Settings) -> str:
    from worker.encoder.load import weights_at_hand
    from worker.loading import load

    if not weights_at_hand(settings.encoder):
        raise _Unwell(
            say(
                "the weights of {encoder} are not on this machine. A worker downloads them at its start if it can "
                "reach the model hub, and otherwise says how to bring them.",
                encoder=settings.encoder,
            )
        )
    encoder = load(settings)
    return say(
        "{model}, {dimension} numbers, on {device} by {backend}",
        model=encoder.model_key,
        dimension=encoder.dimension,
        device=encoder.device,
        backend=encoder.backend,
    )


def index(settings: Settings) -> str:
    from worker.runtime import generation_folder

    files = generation_folder(settings)
    with open_store(settings) as store:
        newest, highest = store.generations.newest(), store.generations.highest()
        lost = [str(g.number) for g in store.generations.kept() if g.state == "lost"]
    beside = ""
    if beyond := [str(number) for number in files.numbers() if number > highest]:
        words = to_say(
            "The database was restored to an earlier time since: the files of the generations {numbers} on this host "
            "are of what is lost, and nobody opens them."
        )
        beside = f" {say(words, numbers=', '.join(beyond))}"
    if lost:
        part = to_say(
            "the log does not hold the changes at which these generations were built: {numbers}. The database was "
            "restored, but not all of it. They serve no more; run `sightline rebuild`."
        )
        raise _Unwell(say(part, numbers=", ".join(lost)))
    if newest is None:
        raise _Unwell(say("no generation is published yet. Run `sightline rebuild`.") + beside)
    published, model_key = newest
    try:
        opened = files.open_published(published, model_key).manifest
    except BadGeneration as exc:
        why = in_language(exc.message)
        words = say("{why}. Until you run `sightline rebuild`, workers hold more in memory.", why=why)
        raise _Unwell(words + beside) from exc
    whole = say(
        "generation {number} of {model}: {count} photos at seq {seq}, files whole",
        number=opened.number,
        model=opened.model_key,
        count=opened.count,
        seq=opened.seq,
    )
    return f"{whole}.{beside}" if beside else whole


def pictures(settings: Settings) -> str:
    with open_store(settings) as store:
        unseen = store.vectors.missing_hash_count()
    if unseen:
        words = to_say(
            "{count} photos were indexed before pictures were compared: copies of them that differ more than by having "
            "been saved again speak as other photos. Run `sightline embed --missing`, which looks at them again."
        )
        raise _Unwell(say(words, count=unseen))
    return say("all have been looked at, to know copies of them")


def answers(settings: Settings) -> str:
    """Never unwell: without enough photos to learn from answers are fewer, not wrong."""
    # With it comes OpenCV, for which no other command should wait.
    from worker.library.learning import from_json
    from worker.place.calibration import proven
    from worker.place.promised import TooFew

    with open_store(settings) as store:
        newest = store.generations.newest()
        kept = None if newest is None else store.generations.learnt(newest[0].number)
    if kept is None:
        return say("what they are worth is learnt by the next rebuild; until then only verified ones are given")
    learnt = proven(from_json(kept))
    if isinstance(learnt, TooFew):
        few = in_language(learnt.message)
        return say("their probability is not known yet, and only verified ones are given: {few}", few=few)
    if learnt.least >= 1.0:
        words = to_say(
            "none are given: not even the clearest are right as often as promised (SIGHTLINE_FALSE_ANSWERS). Are there "
            "wrong coordinates among the trusted ones?"
        )
        return say(words)
    return say(
        "their probability is learnt from {cases} questions about {places} places; given from {least:.0%} on",
        cases=learnt.cases,
        places=learnt.places,
        least=learnt.least,
    )


def exam(settings: Settings) -> str:
    """Whether what serves is as good as the baseline, and what does not serve because it is not."""
    with open_store(settings) as store:
        newest = store.generations.newest()
        said = None if newest is None else store.generations.said(newest[0].number)
        held = None if newest is None else store.generations.held_back(newest[1])
    if held is not None:
        words = to_say(
            "generation {number} was held back: {why}. The one before serves on. `sightline exam` shows where answers "
            "are wrong; `sightline rebuild --force` publishes it all the same, and `sightline exam --freeze` then "
            "makes it the baseline."
        )
        raise _Unwell(say(words, number=held[0], why=in_language(held[1]["why"])))
    if said is None:
        return say("none was held yet: the next rebuild holds one")
    if said["worse"]:
        words = to_say("{why}. `sightline exam` shows where; `sightline exam --freeze` makes it the baseline.")
        raise _Unwell(say(words, why=in_language(said["why"])))
    if said["passed"] is False:
        words = to_say(
            "{why}. `sightline exam` says why they could not: mostly no place has a second photo to find it by. Add "
            "more photos of the same places with coordinates to trust; the next rebuild holds another exam."
        )
        raise _Unwell(say(words, why=in_language(said["why"])))
    return in_language(said["why"])


def photo_roots(settings: Settings) -> str:
    if faulty := faults(settings.photo_roots):
        raise _Unwell("\n".join(faulty.values()))
    if not settings.photo_roots and not settings.url_hosts:
        raise _Unwell(say("no folder and no host is allowed. Set SIGHTLINE_PHOTO_ROOTS to where the photos lie."))
    return ", ".join(map(str, settings.photo_roots)) or say("URLs of {hosts}", hosts=", ".join(settings.url_hosts))


def decoders(settings: Settings) -> str:
    """Never unwell of less than all: SIGHTLINE_SANDBOX=required says that it must not be."""
    from worker.sandbox.confinement import FULL, NONE
    from worker.sandbox.port import OFF, level_of

    level = level_of(settings)
    if level == OFF:
        return say("photos are decoded within the workers themselves (SIGHTLINE_SANDBOX=off)")
    if level == NONE:
        return say("photos are decoded within the workers themselves: this system is not Linux")
    if level != FULL:
        return say(
            "photos are decoded by processes of their own, confined by {level}; this machine gives no more of {full}",
            level=level,
            full=FULL,
        )
    return say("photos are decoded by processes of their own, confined by {level}", level=level)


def photos(settings: Settings) -> str:
    """Never unwell: it is the photos' fault, or their owner's wish."""
    with open_store(settings) as store:
        counted = store.attempts.not_taken_counts()
    if not counted:
        return say("none is refused, no file has changed or gone")
    counts = ", ".join(f"{code}: {count}" for code, count in Counter(counted).most_common())
    return say(
        "looked at. Some are refused, or their file has changed or is gone, which disturbs no others: {counts}. "
        "`sightline refused` lists them.",
        counts=counts,
    )


def workers(settings: Settings) -> str:
    with open_client(settings) as client:
        reply = client.stats(timeout_s=PATIENCE_S)
    return say("answer: {count} photos indexed with {model}", count=reply.indexed, model=reply.model_key)


def _checks() -> Iterator[tuple[str, Callable[[Settings], str], Sequence[Callable[[Settings], str]]]]:
    """(name, check, those that must be well before it can be made)."""
    yield to_say("broker"), broker, ()
    yield to_say("keys"), keys, (broker,)
    yield to_say("queues"), queues, (broker,)
    yield to_say("database"), database, ()
    yield to_say("photos table"), photos_table, (database,)
    yield to_say("model"), model, ()
    yield to_say("index"), index, (database,)
    yield to_say("pictures"), pictures, (database,)
    yield to_say("answers"), answers, (database,)
    yield to_say("exam"), exam, (database,)
    yield to_say("photo folders"), photo_roots, ()
    yield to_say("decoders"), decoders, ()
    yield to_say("photos"), photos, (database,)
    yield to_say("workers"), workers, (broker, database)


def _checked(settings: Settings, tell: Callable[[str], None]) -> Iterator[tuple[str, bool, str]]:
    """(name, whether all is well, a sentence). What is the matter is said where it is found, and not by all that need
    the same. tell: is told which one begins."""
    unwell: dict[Callable[[Settings], str], str] = {}
    for name, check, needed in _checks():
        tell(name)
        if lacking := [unwell[other] for other in needed if other in unwell]:
            fine, words = False, say("not checked: see above, {checks}", checks=", ".join(map(say, lacking)))
        else:
            fine, words = _made(check, settings)
        if not fine:
            unwell[check] = name
        yield name, fine, words


def _made(check: Callable[[Settings], str], settings: Settings) -> tuple[bool, str]:
    try:
        return True, check(settings)
    except _Unwell as exc:
        return False, exc.message
    except (WorkerError, SightlineError) as exc:
        return False, told(exc.code, exc.message)
    except (ValueError, OSError) as exc:
        return False, in_language(str(exc))


class _Unwell(Permanent):
    """What a check has found, in the language that is set."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.NOT_READY, message)
