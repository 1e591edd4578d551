"""What a photo's position counts as, wherever it came from. Values in, a value out."""

from __future__ import annotations

from producer_client.contract import PositionIssue, Provenance
from producer_client.positions import at_default_point
from worker.core.types import Entry, FileState

STALE = {FileState.CHANGED: PositionIssue.FILE_CHANGED, FileState.GONE: PositionIssue.FILE_GONE}


def counts_as(
    entry: Entry, *, agree_m: float, stale_files_count: bool = False
) -> tuple[Provenance | None, PositionIssue | None]:
    """The provenance that everybody is shown, and why it is not the one that is stored.

    A default or a cell tower's circle is a `fallback`, also where the backend's table calls it surveyed, and so is what
    something contradicts until a person has confirmed it: it is stored and searched and never evidence. Decided when it
    is read, so that it holds for all ways in and for what is stored already. agree_m: the distance within which
    witnesses agree; a larger error cannot speak for any one place. stale_files_count: whether a photo is evidence whose
    file has changed or gone since it was embedded. Otherwise it is none until the file is as it was, or has been
    embedded again.
    """
    if entry.lat is None or entry.lon is None or entry.provenance is None:
        return entry.provenance, None
    if at_default_point(entry.lat, entry.lon):
        return Provenance.FALLBACK, PositionIssue.DEFAULT_POINT
    if entry.position_error_m is not None and entry.position_error_m > agree_m:
        return Provenance.FALLBACK, PositionIssue.TOO_COARSE
    if entry.suspended:
        return Provenance.FALLBACK, PositionIssue.SUSPENDED
    if entry.file_state is not None and not stale_files_count:
        return Provenance.FALLBACK, STALE[entry.file_state]
    return entry.provenance, None


def issue_told(issue: PositionIssue | None, *, former: bool) -> PositionIssue | None:
    """former: to a client of the release before, which takes no word that it does not know: it hears no reason."""
    return None if former and issue is PositionIssue.SUSPENDED else issue
