"""What `pip install .` gives a backend: producer_client alone, with celery and msgspec as its only dependencies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "torch", "faiss", "PIL", "sqlalchemy", "open_clip", "pydantic", "worker", "fsspec", "rich", "babel")


def test_importing_the_client_needs_none_of_the_heavy_packages() -> None:
    program = f"""
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(f"the client must not import {{name}}")
sys.meta_path.insert(0, Wall())
import producer_client, producer_client.compat, producer_client.sources
producer_client.compat.CLIPSimilarityService().close()
producer_client.Sightline("redis://127.0.0.1:1/0").close()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_the_distribution_declares_celery_its_driver_and_msgspec_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert [re.split(r"[\[>]", d)[0] for d in project["dependencies"]] == ["celery", "kombu", "redis", "msgspec"]


def built(source: Path, folder: Path) -> Path:
    """The wheel of a distribution."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(source),
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the client."""
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_built_wheel_holds_the_client_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"producer_client"}
    assert {"producer_client/py.typed", "producer_client/locale/ru/LC_MESSAGES/sightline.mo"} <= set(names)
    assert set(pages("producer_client")) <= set(names)


def test_the_wheel_of_the_worker_brings_all_of_it_and_its_words(tmp_path: Path) -> None:
    aside = shutil.copytree(ROOT / "worker", tmp_path / "worker", ignore=shutil.ignore_patterns("build", "*.egg-info"))

    names = zipfile.ZipFile(built(aside, tmp_path)).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"worker"}
    assert "worker/locale/ru/LC_MESSAGES/sightline.mo" in names
    assert set(pages("worker")) <= set(names)


def pages(package: str) -> list[str]:
    """Its modules, by their paths in a wheel."""
    found = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return [path.as_posix() for path in found if "build" not in path.parts]


@pytest.mark.slow
def test_it_imports_in_an_environment_with_celery_and_msgspec_alone(wheel: Path, tmp_path: Path) -> None:
    # A pip of its own, and compiling all of celery, would take longer than the rest.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "-q", "--no-compile", str(wheel)], check=True, timeout=300)

    program = """
from importlib.metadata import distributions
from producer_client.language import Language, say
print(say("✅ Found", Language.RU))
print(*(found.name.lower() for found in distributions()))
"""
    command = [str(python), "-X", "utf8", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True, timeout=60)

    said, names = done.stdout.splitlines()
    installed = set(names.split())
    assert {"celery", "kombu", "msgspec", "sightline-client"} <= installed
    assert not installed & {"numpy", "torch", "pillow", "sqlalchemy", "faiss-cpu", "pydantic", "babel"}
    assert said == "✅ Успешно"
