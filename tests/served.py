"""The two upload recipes as their servers load them: uvicorn `tests.served:fast`, gunicorn `tests.served:flask()`.

Nobody answers their requests, and no row is looked at until somebody has.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from examples import upload_fastapi, upload_flask
from producer_client import Sightline

SECRET = "only for tests"


def settings() -> dict[str, Any]:
    return {"database_url": "sqlite://", "photo_folder": Path(tempfile.gettempdir()), "secret_key": SECRET}


def fast() -> Any:
    return upload_fastapi.create_app(Sightline(os.environ["FORKED_REDIS"]), **settings())


def flask() -> Any:
    return upload_flask.create_app(Sightline(os.environ["FORKED_REDIS"]), **settings())
