"""What a host says that lacks the packages of an extra: a code, a sentence, what to install, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer_client.contract import Code, Photo
from worker.embedded import EmbeddedServers
from worker.errors import Permanent, PhotoRefusal
from worker.extras import CLOUD, EMBEDDED
from worker.settings import Settings
from worker.storage.objects import ObjectFolder
from worker.storage.source import PhotoFiles

ROOT = Path(__file__).parents[2]
NOT_THERE = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from worker.cli import main
main()
"""


def lack(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if they were not installed: None in sys.modules makes an import fail and find_spec find nothing."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def sightline_without(modules: str, *arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`sightline` in a process of its own, where these modules are not installed."""
    return subprocess.run(
        [sys.executable, "-c", NOT_THERE, modules, *arguments],
        cwd=ROOT,
        env=os.environ | {"SIGHTLINE_DATA_DIR": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --------------------------------------------------------------------------------------------- cloud


@pytest.mark.parametrize(("scheme", "driver"), CLOUD.items())
def test_a_photo_in_a_bucket_that_cannot_be_read_here_is_refused_with_what_to_install(
    scheme: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, driver)
    source = PhotoFiles(Settings(url_hosts=("photos",), url_schemes=(scheme,)))

    with pytest.raises(PhotoRefusal) as caught:
        source.fetch(Photo(url=f"{scheme}://photos/a.jpg"))

    assert caught.value.code is Code.NOT_READY
    assert f"{scheme}://photos/a.jpg" in caught.value.message
    assert "sightline-worker[cloud]" in caught.value.message


def test_whether_a_bucket_is_allowed_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, *CLOUD.values())

    with pytest.raises(PhotoRefusal) as caught:
        PhotoFiles(Settings(url_schemes=("s3",))).fetch(Photo(url="s3://photos/a.jpg"))

    assert caught.value.code is Code.URL_NOT_ALLOWED


@pytest.mark.parametrize(("scheme", "driver"), CLOUD.items())
def test_generations_in_a_bucket_that_cannot_be_reached_here_are_said_with_their_setting(
    scheme: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, driver)

    with pytest.raises(Permanent, match=r"sightline-worker\[cloud\].*SIGHTLINE_INDEX_URL") as caught:
        ObjectFolder(f"{scheme}://bucket/index").names()

    assert caught.value.code is Code.NOT_READY


def test_a_shared_directory_needs_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, *CLOUD.values())

    assert ObjectFolder(f"file://{tmp_path}/index").names() == []


@pytest.mark.parametrize("role", ["serve", "index"])
def test_a_worker_that_cannot_reach_its_generations_does_not_start(role: str, tmp_path: Path) -> None:
    ended = sightline_without(
        "s3fs", "worker", "--role", role, folder=tmp_path, SIGHTLINE_INDEX_URL="s3://bucket/index", COLUMNS="300"
    )

    assert ended.returncode == 1
    assert "s3://bucket/index" in ended.stderr
    assert "Install sightline-worker[cloud]" in ended.stderr
    assert "Traceback" not in ended.stderr


# ------------------------------------------------------------------------------------------ embedded


@pytest.mark.parametrize("module", EMBEDDED)
def test_servers_that_are_not_installed_are_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, module)

    with pytest.raises(Permanent, match=rf"{module}\. Install sightline-worker\[embedded\]") as caught:
        EmbeddedServers(tmp_path / "data").__enter__()

    assert caught.value.code is Code.NOT_READY
    assert not (tmp_path / "data").exists()


def test_up_without_its_servers_says_what_to_install(tmp_path: Path) -> None:
    ended = sightline_without(",".join(EMBEDDED), "up", folder=tmp_path, COLUMNS="300")

    assert ended.returncode == 1
    assert "Install sightline-worker[embedded]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_command_waits_for_what_only_workers_need() -> None:
    program = "import sys, worker.joined; worker.joined.join(); print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    for name in ("torch", "faiss", "cv2", "sqlalchemy", "onnxruntime", "openvino", "PIL", "worker.library"):
        assert f"'{name}'" not in loaded
