"""`sightline export`: what workers without torch serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from producer_client.contract import Code
from worker.commands.tables import Table
from worker.commands.terminal import NO_MODEL, AsJson, Misused, err, fail, out, show
from worker.errors import EncoderUnavailable
from worker.extras import has_torch
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import in_language, say

if TYPE_CHECKING:
    from worker.encoder.exporting import Exported

MB = 1e6


def export(
    upload: Annotated[
        bool,
        typer.Option("--upload", help=say("Also put it to SIGHTLINE_INDEX_URL, where workers without torch fetch it.")),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make what workers without torch serve, compared with torch: the models of the settings, in SIGHTLINE_MODELS_DIR.

    What lies there already is looked at and kept.
    """
    settings = load_settings()
    if upload and not settings.index_url:
        raise Misused(say("--upload wants SIGHTLINE_INDEX_URL to be set"))
    if not has_torch():
        fail(say("torch is not installed here: run `sightline export` where it is"), NO_MODEL, code=Code.NOT_READY)
    with err.status("") as status:
        try:
            made = [
                _exported(settings, name, sha256, upload, lambda words: status.update(words))
                for name, sha256 in (
                    (settings.encoder, settings.encoder_sha256),
                    (settings.next_encoder, settings.next_encoder_sha256),
                )
                if name
            ]
        except EncoderUnavailable as exc:
            fail(exc.message, NO_MODEL, code=exc.code, english=exc.message)
    show(as_json, {"models": made}, lambda: print_exports(made))


def print_exports(made: list[dict[str, Any]]) -> None:
    """made: as --json has them."""
    for model in made:
        shown = Table(title=escape(model["model_key"]))
        shown.add_column(say("file"))
        shown.add_column(say("MB"), justify="right")
        shown.add_column(say("SHA-256"))
        for name, file in model["files"].items():
            shown.add_row(name, f"{file['bytes'] / MB:.1f}", f"{file['sha256'][:16]}…")
        out.print(shown)
        out.print(escape(model["folder"]), highlight=False, soft_wrap=True)
        worst = f"{model['cosine']:.5f}"
        out.print(say("worst cosine to torch: {worst} of pictures", worst=worst), highlight=False)
        if model["texts_cosine"] is not None:
            worst = f"{model['texts_cosine']:.5f}"
            out.print(say("worst cosine to torch: {worst} of texts", worst=worst), highlight=False)
        if model["no_texts"]:
            why = escape(in_language(model["no_texts"]))
            out.print(say("no texts are searched for without torch: {why}", why=why), highlight=False)
        if model["url"]:
            out.print(say("uploaded to {url}", url=escape(model["url"])), highlight=False, soft_wrap=True)


def _exported(settings: Settings, name: str, sha256: str, upload: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    from worker.encoder.exporting import export_model
    from worker.storage.objects import models_at

    made = export_model(
        name,
        sha256=sha256,
        threads=settings.threads,
        models=settings.exports_dir,
        tell=lambda step: tell(say("exporting: {step}", step=say(step))),
    )
    url = None
    if upload:
        tell(say("uploading"))
        remote = models_at(settings.index_url)
        assert remote is not None
        made.export.put(remote)
        url = f"{remote.url}/{made.export.folder.name}"
    return {"encoder": name, **_told(made), "url": url}


def _told(made: Exported) -> dict[str, Any]:
    folder = made.export.folder
    files = {
        name: {"sha256": digest, "bytes": Path(folder / name).stat().st_size}
        for name, digest in made.export.files().items()
    }
    return {
        "model_key": made.spec.model_key,
        "folder": str(folder),
        "files": files,
        "cosine": made.cosine,
        "texts_cosine": made.texts_cosine,
        "no_texts": made.no_texts,
    }
