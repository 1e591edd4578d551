"""`sightline`: where it begins, and what Ctrl-C does at any moment from there on. Knows no command.

It imports nothing of weight, as all else is loaded while somebody may press it already.
"""

from __future__ import annotations

import os
import signal
import sys

from worker.signals import INTERRUPTED, raise_on_signals


def main() -> None:
    """Entry point. While modules are loaded, and when all is said, Ctrl-C ends the process where it is; a command ends
    in order."""
    # Of a process that a script has started in the background it is ignored, and stays so.
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "--json" in sys.argv:
        # Programs read one language. Some texts are made while modules are loaded, so it is chosen before.
        os.environ["SIGHTLINE_LANG"] = "en"
    from worker.health import quick

    if (code := quick(sys.argv[1:])) is not None:
        sys.exit(code)
    from worker.core.starting import uncollected

    with uncollected():
        from worker.joined import run
    try:
        if heard:
            raise_on_signals(signal.SIGINT)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
