"""The dashboards in deploy/grafana, as far as they can be checked without Grafana: by what its documentation asks for
("Dashboard JSON model"), and by Prometheus' own parser."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitored import DASHBOARDS, RULES, needs_prometheus, promtool

FILES = sorted(DASHBOARDS.glob("*.json"))
#: Of Grafana's units, those that are used, and the base unit that a metric of them has.
UNITS = {"short", "s", "bytes", "percentunit", "ops"}
KINDS = {"stat", "timeseries"}


def _board(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def _panels() -> list[tuple[str, dict[str, Any]]]:
    return [(path.stem, panel) for path in FILES for panel in _board(path)["panels"]]


def test_there_is_a_dashboard_for_each_part() -> None:
    assert [path.stem for path in FILES] == ["answers", "embedding", "exam", "index", "queues"]
    boards = [_board(path) for path in FILES]
    assert [board["uid"] for board in boards] == [f"sightline-{path.stem}" for path in FILES]
    assert [board["title"] for board in boards] == [f"Sightline: {path.stem}" for path in FILES]
    assert len({panel["title"] for path in FILES for panel in _board(path)["panels"]}) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = _board(path)

    assert {"uid", "title", "tags", "schemaVersion", "time", "refresh", "templating", "links", "panels"} <= board.keys()
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    assert "/public/sightline/runbook.md" in [link.get("url") for link in board["links"]]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        assert panel["type"] in KINDS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        steps = [step["value"] for step in defaults.get("thresholds", {}).get("steps", [])]
        assert not steps or steps[0] is None
        assert steps[1:] == sorted(steps[1:])
        # More than one series, and nobody could tell which is which.
        if len(references) > 1 or " by (" in panel["targets"][0]["expr"]:
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_panel_lies_on_another_or_beyond_the_edge(path: Path) -> None:
    places = [panel["gridPos"] for panel in _board(path)["panels"]]

    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_a_unit_is_that_of_what_is_shown() -> None:
    """A metric's name ends with its unit, and a rate of a counter is so many a second."""
    for board, panel in _panels():
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for expr in (target["expr"] for target in panel["targets"]):
            where = (board, panel["title"], expr)
            if re.search(r"_ratio\b|recall_(at_10|promised|gate)\b|confidence_bucket|answers_abstained:", expr):
                assert unit == "percentunit", where
            elif " / " in expr:
                assert unit in ("percentunit", "s") or "batch_photos" in expr, where
            elif re.search(r"_seconds\b|_seconds_bucket", expr):
                assert unit == "s", where
            elif "_bytes" in expr:
                assert unit == "bytes", where
            elif "rate(" in expr and "histogram_quantile" not in expr:
                assert unit == "ops", where


def test_an_alert_that_a_panel_names_exists_and_each_is_named_by_one() -> None:
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))

    named = {name for _, panel in _panels() for name in re.findall(r"\bSightline[A-Z]\w+", panel["description"])}

    assert named - alerts == set()
    # Whether Prometheus reaches a process is shown by Prometheus itself.
    assert alerts - named == {"SightlineScrapeFails"}


@needs_prometheus
def test_prometheus_takes_every_query_of_a_panel(tmp_path: Path) -> None:
    exprs = [target["expr"] for _, panel in _panels() for target in panel["targets"]]
    written = tmp_path / "queries.yml"
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    written.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    checked = promtool("check", "rules", str(written))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(exprs)} rules found" in checked.stdout


def test_what_is_provisioned_is_where_the_panels_look() -> None:
    provisioning = DASHBOARDS.parent / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "sightline.yml").read_text())["providers"]

    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert provider["type"] == "file"
    assert provider["options"]["path"].endswith("/dashboards")
