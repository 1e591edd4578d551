"""All metrics as the tables of docs/metrics.md: `python -m worker.observe.table docs/metrics.md` puts them there."""

from __future__ import annotations

import sys
from pathlib import Path

from worker.observe.names import HEARD, POSTGRES, REACHABLE, REDIS, SCRAPE, STATE, Metric

#: Around the generated tables in the page.
BEGINS, ENDS = "<!-- metrics begin -->", "<!-- metrics end -->"
PARTS = {
    "Of each process (`SIGHTLINE_METRICS_PORT`)": [*HEARD.values(), *STATE.values()],
    "Of `sightline metrics`, which reads Redis and Postgres": [
        REACHABLE,
        SCRAPE,
        *REDIS.values(),
        *POSTGRES.values(),
    ],
}


def as_markdown() -> str:
    return "\n".join(f"## {title}\n\n{_table(metrics)}" for title, metrics in PARTS.items())


def _table(metrics: list[Metric]) -> str:
    rows = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.says} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    before, _, rest = page.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    page.write_text(before + BEGINS + "\n" + as_markdown() + ENDS + after)
