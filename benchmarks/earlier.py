"""An earlier release at the same work, in processes of its own, for benchmarks that compare with it in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import VectorFile
from benchmarks.processes import cores, threads_env
from worker.settings import Settings

#: What the process does: `fill` and `rebuild` of benchmarks.service, as that release has them.
_CHILD = """
import json, sys
from pathlib import Path
from benchmarks import service
from benchmarks.measure import VectorFile
from worker.settings import Settings
if not Path(service.__file__).is_relative_to(Path.cwd()):
    raise SystemExit(f"{service.__file__} does not lie in {Path.cwd()}")
asked = json.load(sys.stdin)
settings = Settings(**asked["settings"])
if asked["fill"]:
    service.fill(settings, VectorFile(Path(asked["path"]), asked["count"], asked["dimension"]))
else:
    print(json.dumps(service.rebuild(settings, asked["dimension"])))
"""


class EarlierRelease:
    """checkout: the release's own folder, with its `benchmarks`, `worker` and `producer_client`. vectors: what it
    stores and indexes, under settings that name a schema and a folder of its own."""

    def __init__(self, checkout: Path, settings: Settings, vectors: VectorFile) -> None:
        self._checkout = checkout.resolve()
        names = ("database_url", "data_dir", "db_schema", "photos_table")
        self._asked = {
            "settings": {name: str(getattr(settings, name)) for name in names},
            "path": str(vectors.path),
            "count": vectors.count,
            "dimension": vectors.dimension,
        }

    def fill(self) -> None:
        """Its tables, and every vector in them."""
        self._run(fill=True)

    def rebuild(self) -> dict[str, Any]:
        """As benchmarks.service.rebuild."""
        figures: dict[str, Any] = json.loads(self._run(fill=False))
        return figures

    def _run(self, *, fill: bool) -> bytes:
        paths = {"PYTHONPATH": str(self._checkout), "PYTHONSAFEPATH": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=json.dumps(self._asked | {"fill": fill}).encode(),
            cwd=self._checkout,
            env=os.environ | paths | threads_env(cores()),
            stdout=subprocess.PIPE,
            check=True,
        )
        return done.stdout
