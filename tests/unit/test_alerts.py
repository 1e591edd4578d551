"""The alerts in deploy/prometheus: each fires where it should and nowhere else, and the runbook has a section for it.

Prometheus' own promtool says what fires, over series that are written down here: those of a healthy service, with what
a case changes in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.main import get_command

from producer_client.contract import StatsReply
from producer_client.language import Language, catalogue
from tests.monitored import RULES, needs_prometheus, promtool
from worker.commands import doctor
from worker.commands.index import figure
from worker.joined import join
from worker.settings import Settings
from worker.words import PACKAGE

ROOT = Path(__file__).parents[2]
RUNBOOKS = [ROOT / "docs" / "runbook.md", ROOT / "docs" / "runbook.ru.md"]

#: Minutes, one sample each, of every series here.
LASTS = 160


def flat(value: float) -> str:
    """A series in promtool's notation that stays at one value."""
    return f"{value}+0x{LASTS}"


def rising(first: float, each_minute: float) -> str:
    return f"{first}{each_minute:+g}x{LASTS}"


def after(minutes: int, then: float, before: float = 0) -> str:
    """A series that changes once."""
    return f"{before}+0x{minutes - 1} {then}+0x{LASTS - minutes}"


def until(minutes: int, value: float) -> str:
    """A series that is there no longer after so many minutes."""
    return f"{value}+0x{minutes - 1} stale"


EXPORTER = '{job="sightline-exporter",instance="exporter"}'
ONE, OTHER = '{job="sightline",instance="one"}', '{job="sightline",instance="other"}'


def of(name: str, where: str = EXPORTER, **labels: str) -> str:
    named = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{where[:-1]}{',' if named else ''}{named}}}"


def answered(status: str) -> str:
    return of("sightline_answers_total", ONE, status=status, reason="unverified" if status == "abstained" else "")


#: Of a service that is well, and only just: whatever can be a little too much is as much as it may be.
HEALTHY: dict[str, str] = {
    **{of("up", where): flat(1) for where in (EXPORTER, ONE, OTHER)},
    **{of("sightline_reachable", server=server): flat(1) for server in ("redis", "postgres")},
    **{of("sightline_processes", role=role): flat(1) for role in ("serve", "index", "beat")},
    **{
        of(f"sightline_queue_{name}", queue=queue): flat(value)
        for queue, age_s in {"interactive": 10, "bulk": 3600, "index": 900}.items()
        for name, value in {
            "ready": 1,
            "in_hand": 1,
            "oldest_age_seconds": age_s,
            "in_hand_oldest_age_seconds": 900,
            "unknown_age": 0,
            "consumers": 1,
        }.items()
    },
    of("sightline_parked_messages"): flat(2),
    of("sightline_clock_skew_total"): flat(3),
    of("sightline_photos", state="with_coordinates"): flat(1000),
    # An import that is slow, and goes on.
    of("sightline_missing_vectors"): rising(5000, -1),
    of("sightline_quarantined_photos"): flat(2),
    of("sightline_purge_oldest_age_seconds"): flat(26 * 3600),
    of("sightline_log_seq"): rising(5000, 10),
    of("sightline_generation"): flat(7),
    of("sightline_generation_age_seconds"): flat(26 * 3600),
    of("sightline_generation_recall_promised"): flat(0.97),
    of("sightline_exam_passed"): flat(1),
    of("sightline_rebuild_running"): flat(0),
    of("sightline_rebuild_last_success_timestamp_seconds"): flat(2000),
    of("sightline_rebuild_last_failure_timestamp_seconds"): flat(2000),
    # One is some changes behind and goes on; the other has read nothing yet, as nobody has searched there.
    of("sightline_applied_seq", ONE): rising(4900, 10),
    of("sightline_applied_seq", OTHER): flat(0),
    of("sightline_serving_generation", ONE): flat(7),
    of("sightline_index_photos", ONE): flat(300_000),
    of("sightline_index_delta_photos", ONE): flat(30_000),
    # Of few photos, more than a tenth is soon new.
    of("sightline_index_photos", OTHER): flat(50_000),
    of("sightline_index_delta_photos", OTHER): flat(20_000),
    **{of("sightline_recall_gate", where): flat(0.97) for where in (ONE, OTHER)},
    of("sightline_recall_at_10", ONE): flat(0.95),
    of("sightline_recall_at_10_at_most", ONE): flat(0.97),
    # Of a few searches nothing is sure.
    of("sightline_recall_at_10", OTHER): flat(0.9),
    of("sightline_answers_flipped_ratio", ONE): flat(0.1),
    of("sightline_tasks_total", ONE, task="sightline.locate", code="ok"): rising(0, 10),
    of("sightline_tasks_total", ONE, task="sightline.locate", code="internal"): flat(4),
    answered("located"): rising(0, 6),
    answered("abstained"): rising(0, 4),
    **{of("sightline_processes_without_port", role=role): flat(0) for role in ("serve", "index", "beat")},
    of("sightline_disk_reachable", ONE, folder="index"): flat(1),
    of("sightline_disk_free_bytes", ONE, folder="index"): flat(1e11),
    of("sightline_disk_size_bytes", ONE, folder="index"): flat(1e12),
}


@dataclass(frozen=True)
class Case:
    """What is other than in a healthy service, None for a series that is absent, and what fires then after minutes."""

    changed: Mapping[str, str | None]
    after: int
    fires: Mapping[str, int] = field(default_factory=dict)


def wait(queue: str, seconds: float) -> dict[str, str | None]:
    return {of("sightline_queue_oldest_age_seconds", queue=queue): flat(seconds)}


def in_hand(queue: str, seconds: float) -> dict[str, str | None]:
    return {of("sightline_queue_in_hand_oldest_age_seconds", queue=queue): flat(seconds)}


def exporter(name: str, value: str | None, **labels: str) -> dict[str, str | None]:
    return {of(name, **labels): value}


def process(name: str, value: str | None, **labels: str) -> dict[str, str | None]:
    return {of(name, ONE, **labels): value}


OF_THE_EXPORTER = dict.fromkeys(series for series in HEALTHY if EXPORTER[1:-1] in series)
RUNNING = exporter("sightline_rebuild_running", flat(1))
NO_CONSUMER = exporter("sightline_queue_consumers", flat(0), queue="bulk")
SKEWED = exporter("sightline_clock_skew_total", after(20, 4, 3))
PARKED = exporter("sightline_parked_messages", after(5, 3, 2))
UNKNOWN = exporter("sightline_queue_unknown_age", flat(1), queue="bulk")
NO_GENERATION = exporter("sightline_generation_age_seconds", None)
FAILED_AT = exporter("sightline_rebuild_last_failure_timestamp_seconds", flat(2001))
NO_SUCCESS = exporter("sightline_rebuild_last_success_timestamp_seconds", None)
OLD, STALE = (
    process("sightline_serving_generation", flat(6)),
    exporter("sightline_generation_age_seconds", flat(93_601)),
)
OUTGROWN = process("sightline_index_delta_photos", flat(30_001))
BLIND = process("sightline_recall_at_10_at_most", flat(0.96))
LESS_ASKED, MORE_ASKED = (
    {of("sightline_recall_gate", where): flat(gate) for where in (ONE, OTHER)} for gate in (0.96, 0.98)
)
PROMISES_LESS = exporter("sightline_generation_recall_promised", flat(0.969))
UNPURGED = exporter("sightline_purge_oldest_age_seconds", flat(93_601))
LEFT_ALONE = exporter("sightline_quarantined_photos", after(5, 3, 2))
MISSING = exporter("sightline_missing_vectors", flat(5))
FLIPPED = process("sightline_answers_flipped_ratio", flat(0.11))
FAULTY = process("sightline_tasks_total", after(20, 5, 4), task="sightline.locate", code="internal")
UNREACHABLE = exporter("sightline_reachable", flat(0), server="postgres")
PORTLESS = exporter("sightline_processes_without_port", flat(1), role="serve")
SILENT_DISK = process("sightline_disk_reachable", flat(0), folder="index")
FULL = process("sightline_disk_free_bytes", flat(0.99e11), folder="index")
#: Of ten questions in a minute four have no answer, and from minute 70 on all.
SILENT: dict[str, str | None] = {
    answered("abstained"): f"0+4x70 290+10x{LASTS - 71}",
    answered("located"): f"0+6x70 420+0x{LASTS - 71}",
}
#: The same of so few now, or before, that nobody can tell.
HARDLY_ASKED = {
    answered("abstained"): f"0+0x70 1+1x40 41+0x{LASTS - 112}",
    answered("located"): f"0+6x20 120+0x{LASTS - 21}",
}
NEVER_ASKED = {
    answered("abstained"): f"0+0x70 1+1x{LASTS - 71}",
    answered("located"): f"0+1x20 20+0x{LASTS - 21}",
}

#: Of each alert: it fires, and it does not, not yet or for a reason.
CASES: dict[str, list[Case]] = {
    "Nothing": [Case({}, minutes) for minutes in (1, LASTS - 1)],
    "SightlineInteractiveWaits": [
        Case(wait("interactive", 11), 1, {"SightlineInteractiveWaits": 1}),
        Case(wait("interactive", 11), 0),
    ],
    "SightlineBulkWaits": [
        Case(wait("bulk", 3601), 15, {"SightlineBulkWaits": 1}),
        Case(wait("bulk", 3601), 14),
    ],
    "SightlineIndexWaits": [
        Case(wait("index", 901), 5, {"SightlineIndexWaits": 1}),
        Case(wait("index", 901), 4),
        Case(wait("index", 9000) | RUNNING, 10),
        Case(wait("index", 901) | dict.fromkeys(RUNNING), 5, {"SightlineIndexWaits": 1}),
    ],
    "SightlineNoConsumer": [
        Case(NO_CONSUMER, 2, {"SightlineNoConsumer": 1}),
        Case(dict.fromkeys(NO_CONSUMER), 2, {"SightlineNoConsumer": 1}),
        Case(dict.fromkeys(NO_CONSUMER, until(10, 1)), 12, {"SightlineNoConsumer": 1}),
        Case(NO_CONSUMER, 1),
        Case(NO_CONSUMER | exporter("sightline_queue_ready", flat(0), queue="bulk"), 5),
    ],
    "SightlineInHandTooLong": [
        Case(in_hand("bulk", 901) | in_hand("interactive", 901), 2, {"SightlineInHandTooLong": 2}),
        Case(in_hand("index", 901), 2, {"SightlineInHandTooLong": 1}),
        Case(in_hand("bulk", 901) | in_hand("index", 901), 1),
        Case(in_hand("index", 9000) | RUNNING, 5),
        Case(in_hand("bulk", 901) | RUNNING, 2, {"SightlineInHandTooLong": 1}),
    ],
    "SightlineAgesUnknown": [Case(UNKNOWN, 15, {"SightlineAgesUnknown": 1}), Case(UNKNOWN, 14)],
    "SightlineClockSkew": [
        Case(SKEWED, 25, {"SightlineClockSkew": 1}),
        Case(SKEWED, 23),
        Case(SKEWED, 41),
    ],
    "SightlineParkedGrows": [
        Case(PARKED, 6, {"SightlineParkedGrows": 1}),
        Case(PARKED, 66),
        Case(exporter("sightline_parked_messages", after(5, 1, 2)), 6),
    ],
    "SightlineGenerationStale": [
        Case(STALE, 15, {"SightlineGenerationStale": 1}),
        Case(STALE, 14),
        Case(NO_GENERATION, 15, {"SightlineGenerationStale": 1}),
        # Nothing has coordinates, so there is nothing to index.
        Case(NO_GENERATION | exporter("sightline_photos", flat(0), state="with_coordinates"), 16),
    ],
    "SightlineRebuildFails": [
        Case(FAILED_AT, 60, {"SightlineRebuildFails": 1}),
        Case(FAILED_AT, 59),
        Case(NO_SUCCESS, 60, {"SightlineRebuildFails": 1}),
        Case(NO_SUCCESS | dict.fromkeys(FAILED_AT), 61),
    ],
    "SightlineProcessBehind": [
        Case(process("sightline_applied_seq", flat(4900)), 2, {"SightlineProcessBehind": 1}),
        Case(process("sightline_applied_seq", flat(4900)), 1),
        # It has read everything there is.
        Case(process("sightline_applied_seq", flat(5000)) | exporter("sightline_log_seq", flat(5000)), 10),
    ],
    "SightlineOldGenerationServes": [Case(OLD, 30, {"SightlineOldGenerationServes": 1}), Case(OLD, 29)],
    "SightlineIndexOutgrown": [Case(OUTGROWN, 60, {"SightlineIndexOutgrown": 1}), Case(OUTGROWN, 59)],
    "SightlineRecallLow": [
        Case(BLIND, 30, {"SightlineRecallLow": 1}),
        Case(BLIND, 29),
        Case(BLIND | LESS_ASKED, LASTS - 1),
        Case(process("sightline_recall_gate", flat(0.98)), 30, {"SightlineRecallLow": 1}),
    ],
    "SightlineRecallPromisedLow": [
        Case(PROMISES_LESS, 1, {"SightlineRecallPromisedLow": 1}),
        Case(PROMISES_LESS | LESS_ASKED, LASTS - 1),
        Case(MORE_ASKED, 1, {"SightlineRecallPromisedLow": 1}),
        # Nobody says what is asked.
        Case(PROMISES_LESS | dict.fromkeys(LESS_ASKED), LASTS - 1),
    ],
    "SightlineExamFailed": [
        Case(exporter("sightline_exam_passed", flat(0)), 1, {"SightlineExamFailed": 1}),
        Case(exporter("sightline_exam_passed", None), 1),
    ],
    "SightlinePurgeOverdue": [Case(UNPURGED, 15, {"SightlinePurgeOverdue": 1}), Case(UNPURGED, 14)],
    "SightlineQuarantineGrows": [
        Case(LEFT_ALONE, 6, {"SightlineQuarantineGrows": 1}),
        Case(LEFT_ALONE, 66),
        Case(exporter("sightline_quarantined_photos", after(5, 1, 2)), 6),
    ],
    "SightlineMissingVectorsStay": [
        Case(MISSING, 135, {"SightlineMissingVectorsStay": 1}),
        Case(MISSING, 134),
        # There was none for a moment.
        Case(exporter("sightline_missing_vectors", f"5+0x90 0 5+0x{LASTS - 92}"), 140),
    ],
    "SightlineAnswersAbstain": [
        Case(SILENT, 130, {"SightlineAnswersAbstain": 1}),
        Case(SILENT, 110),
        Case(HARDLY_ASKED, LASTS - 1),
        Case(NEVER_ASKED, LASTS - 1),
    ],
    "SightlineAnswersFlip": [Case(FLIPPED, 30, {"SightlineAnswersFlip": 1}), Case(FLIPPED, 29)],
    "SightlineInternalErrors": [
        Case(FAULTY, 25, {"SightlineInternalErrors": 1}),
        Case(FAULTY, 24),
        Case(FAULTY, 31),
    ],
    "SightlineServerUnreachable": [Case(UNREACHABLE, 1, {"SightlineServerUnreachable": 1}), Case(UNREACHABLE, 0)],
    "SightlineExporterAbsent": [
        # All that it says is gone, and nothing but that is said.
        Case(OF_THE_EXPORTER | exporter("up", flat(0)), 5, {"SightlineExporterAbsent": 2, "SightlineScrapeFails": 1}),
        Case(dict.fromkeys(UNREACHABLE), 2, {"SightlineExporterAbsent": 1}),
        Case(dict.fromkeys(UNREACHABLE), 1),
        # It was there, and is no longer.
        Case(dict.fromkeys(OF_THE_EXPORTER, until(10, 1)), 13, {"SightlineExporterAbsent": 2}),
    ],
    "SightlineProcessAbsent": [
        *(
            Case(exporter("sightline_processes", value, role=role), 2, {"SightlineProcessAbsent": 1})
            for role in ("serve", "index", "beat")
            for value in (flat(0), None)
        ),
        Case(exporter("sightline_processes", None, role="beat"), 1),
        # Nobody can tell.
        Case(
            exporter("sightline_processes", None, role="beat")
            | exporter("sightline_reachable", flat(0), server="redis"),
            5,
            {"SightlineServerUnreachable": 1},
        ),
    ],
    "SightlineScrapeFails": [
        Case({of("up", OTHER): flat(0)}, 5, {"SightlineScrapeFails": 1}),
        Case({of("up", OTHER): flat(0)}, 4),
        Case({of("up", ONE): None, of("up", OTHER): None}, 5, {"SightlineScrapeFails": 1}),
    ],
    "SightlineMetricsPortTaken": [
        Case(PORTLESS, 5, {"SightlineMetricsPortTaken": 1}),
        Case(PORTLESS, 4),
    ],
    "SightlineDiskSilent": [Case(SILENT_DISK, 2, {"SightlineDiskSilent": 1}), Case(SILENT_DISK, 1)],
    "SightlineDiskNearlyFull": [Case(FULL, 10, {"SightlineDiskNearlyFull": 1}), Case(FULL, 9)],
}


@needs_prometheus
def test_each_alert_fires_where_it_should_and_nowhere_else(tmp_path: Path) -> None:
    assert CASES.keys() - {"Nothing"} == _alerts().keys()
    tests = [
        _as_promtool_has_it(name, [case for case in cases if case.changed == changed])
        for name, cases in CASES.items()
        for changed in {json.dumps(case.changed): case.changed for case in cases}.values()
    ]
    written = tmp_path / "alerts.yml"
    written.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))

    tried = promtool("test", "rules", str(written))

    assert tried.returncode == 0, tried.stdout + tried.stderr


@needs_prometheus
def test_promtool_takes_the_rules() -> None:
    checked = promtool("check", "rules", "--lint-fatal", str(RULES))

    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_prometheus
@pytest.mark.parametrize("name", ["prometheus.yml", "compose.yml"])
def test_promtool_takes_what_prometheus_is_told(name: str) -> None:
    checked = promtool("check", "config", str(RULES.parent / name))

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_alert_reads_what_is_recorded_in_its_own_group_before_it() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        recorded: set[str] = set()
        for rule in group["rules"]:
            assert set(re.findall(r"\bsightline:[\w:]+", rule["expr"])) <= recorded, rule
            recorded.add(rule.get("record", ""))


def test_every_alert_is_tried_both_ways() -> None:
    for name, cases in CASES.items():
        if name != "Nothing":
            assert any(name in case.fires for case in cases), name


def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() -> None:
    for name, rule in _alerts().items():
        said = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert said.keys() == {"summary", "description", "runbook_url"}, name
        assert said["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert all(len(words) > 20 for words in said.values()), name


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_the_runbook_has_a_section_for_each_alert_and_no_other(page: Path) -> None:
    sections = re.findall(r"^### (\w+)$", page.read_text(), re.MULTILINE)

    assert sorted(sections) == sorted(_alerts())


def test_both_runbooks_show_the_same_commands() -> None:
    english, russian = ([_shown(part) for part in _sections(page)] for page in RUNBOOKS)

    assert english == russian


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_what_the_runbook_shows_of_commands_exists(page: Path) -> None:
    text = " ".join(page.read_text().split())
    shown = [words.split()[1:] for words in _shown(text) if words.startswith("sightline ")]
    lines = re.findall(r"(?:lines?|строк[аи]) `([^`]+)`(?: \(«[^»]+»\))?(?: (?:and|и) `([^`]+)`)?", text)
    rows = {figure(field.name) for field in msgspec.structs.fields(StatsReply)}
    named = {line for pair in lines for line in pair if line} - rows

    assert len(shown) > 30
    for words in shown:
        _taken([*words[:1], *("1" if word == "NUMBER" else word for word in words[1:])])
    assert named
    assert named <= {name for name, *_ in doctor._checks()}
    assert {"messages that a thread was stuck at", "files that are gone", "purges pending", "last rebuild"} <= rows
    assert all(f"`{row}`" in text for row in ("files that are gone", "purges pending", "photos added or changed since"))


def test_the_russian_runbook_says_beside_each_line_what_it_is_called_in_russian() -> None:
    text, russian = " ".join(RUNBOOKS[1].read_text().split()), catalogue(PACKAGE, Language.RU)
    rows = {figure(field.name) for field in msgspec.structs.fields(StatsReply)} | {
        name for name, *_ in doctor._checks()
    }
    # That is a queue and a process, too.
    shown = rows & set(re.findall(r"`([^`]+)`", text)) - {"index"}

    assert {"broker", "last rebuild"} <= shown
    for row in shown:
        assert text.count(f"`{row}`") == text.count(f"`{row}` («{russian.gettext(row)}»)"), row


def test_numbers_that_are_defaults_of_settings_are_theirs() -> None:
    settings = Settings()
    text = RULES.read_text()
    wanted = {
        rf"\b{settings.visibility_timeout_s} s is SIGHTLINE_VISIBILITY_TIMEOUT_S": "SightlineInHandTooLong",
        rf"SIGHTLINE_COMPACT_SHARE \({settings.compact_share}\)": "SightlineIndexOutgrown",
        rf"SIGHTLINE_COMPACT_LEAST \({settings.compact_least}\)": "SightlineIndexOutgrown",
    }

    assert [said for said in wanted if not re.search(said, text)] == []
    exprs = {name: rule["expr"] for name, rule in _alerts().items()}
    assert exprs["SightlineInHandTooLong"].count(f"> {settings.visibility_timeout_s}") == 2
    assert f"> {2 * settings.compact_least} and" in exprs["SightlineIndexOutgrown"]
    assert f"> {2 * settings.compact_share:g} *" in exprs["SightlineIndexOutgrown"]


# ------------------------------------------------------------------------------------------- reading them


def _rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _as_promtool_has_it(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    """A test of promtool's over the same series. All that fires is named: an alert beside it is a failure as well."""
    changed = cases[0].changed
    return {
        "name": f"{name}: {json.dumps(dict(changed))}",
        "interval": "1m",
        "input_series": [
            {"series": one, "values": values} for one, values in {**HEALTHY, **changed}.items() if values is not None
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{case.after}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": count} for alert, count in case.fires.items()
                ],
            }
            for case in cases
        ],
    }


def _sections(page: Path) -> list[str]:
    return re.split(r"^##+ ", page.read_text(), flags=re.MULTILINE)


def _shown(section: str) -> list[str]:
    spans = re.findall(r"`((?:sightline|docker|curl|df|make) [^`]*)`", section)
    return sorted(" ".join(span.split()) for span in spans)


@cache
def _commands() -> Any:
    return get_command(join())


def _taken(words: Sequence[str]) -> None:
    """Raises a UsageError for a command line that `sightline` would not take."""
    group = _commands()
    assert words[0] in group.commands, words
    group.commands[words[0]].make_context(words[0], list(words[1:]))
