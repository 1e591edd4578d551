"""One target in a process of its own, led by which of our code an input reaches (Atheris, libFuzzer)."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from tests.fuzz.watched import Watched

#: Bytes of an input at the most.
LONGEST = 4096


def main(name: str, seconds: str, first: str, folder: str, peer: str) -> None:
    """peer: the folder that Atheris is in. The process ends from within its loop."""
    sys.path.append(peer)
    import atheris

    with atheris.instrument_imports(include=["producer_client", "worker"]):
        from tests.fuzz import targets
    from tests.fuzz.inputs import CORPUS, WRITTEN

    corpus = Path(folder) / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(CORPUS.values() if name == "photo" else WRITTEN):
        (corpus / str(number)).write_bytes(content)
    watched = Watched(partial(targets.timed, getattr(targets, name)), Path(folder), float(seconds))

    def one(content: bytes) -> None:
        if watched.over:
            print(watched.report(), flush=True)
            os._exit(0)  # libFuzzer takes every other end for a find
        watched(content)

    options = [f"-artifact_prefix={folder}/", f"-seed={first}", f"-max_len={LONGEST}", "-rss_limit_mb=0"]
    atheris.Setup([__file__, str(corpus), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
