"""requirements.txt and requirements/: what is pinned where, what the metadata says of it, and what `make` installs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply import IMAGE, closure, locks

ROOT = Path(__file__).parents[2]
SERVE, TORCH, EMBEDDED, CLOUD, TRACING, DEV = FILES = [
    ROOT / "requirements.txt",
    *(ROOT / "requirements" / f"{name}.txt" for name in ("torch", "embedded", "cloud", "tracing", "dev")),
]
SUPPLY = ROOT / "requirements" / "supply.txt"
CONTAINERS = ROOT / "requirements" / "containers.txt"
LOCKS = [ROOT / "requirements" / f"{name}.txt" for name in ("lock", "lock-models", "lock-torch")]
#: Rooms of worker/encoder/ that nobody enters without torch.
WITH_TORCH = ("clip", "exporting", "packaged", "place", "tower", "vit")
OURS = {"worker", "producer_client", "demo"}
#: What is imported where traces are asked for, and nowhere else (tests/unit/test_tracing.py).
TRACED = {ROOT / "worker" / "observe" / name for name in ("spans.py", "statements.py")}


@pytest.mark.parametrize("path", [*FILES, SUPPLY, CONTAINERS], ids=lambda path: path.stem)
def test_every_pin_is_exact_and_has_its_reason(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]

    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+ +# \w.+", line), line


def test_a_package_is_pinned_once_but_for_its_extras() -> None:
    pins = [requirement for path in FILES for requirement in _pins(path)]

    twice = {pin.name: str(pin.specifier) for pin in pins if sum(pin.name == other.name for other in pins) > 1}

    assert twice.keys() <= {"fsspec"}
    assert {str(pin.specifier) for pin in pins if pin.name in twice} == set(twice.values())


def test_the_metadata_of_the_worker_is_read_from_these_files(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT, tmp_path / "source", symlinks=True, ignore=_but_for("worker", "requirements.txt", "requirements")
    )
    # As pip asks for it, in a copy: setuptools writes into the folder that it reads.
    program = f"from setuptools import build_meta as b; b.prepare_metadata_for_build_wheel({str(tmp_path)!r})"
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "source/worker", check=True, capture_output=True, timeout=60
    )

    [written] = tmp_path.glob("*.dist-info/METADATA")
    told = Metadata.from_email(written.read_bytes())
    said: dict[str, set[str]] = {"": set(), "embedded": set(), "cloud": set(), "tracing": set()}
    for requirement in told.requires_dist or []:
        [extra] = re.findall(r'^extra == "(\w+)"$', str(requirement.marker)) if requirement.marker else [""]
        requirement.marker = None
        said[extra].add(str(requirement))
    assert sorted(told.provides_extra or []) == ["cloud", "embedded", "tracing"]
    assert said == {
        extra: {str(pin) for path in paths for pin in _pins(path)}
        for extra, paths in (("", [SERVE, TORCH]), ("embedded", [EMBEDDED]), ("cloud", [CLOUD]), ("tracing", [TRACING]))
    }


def test_serving_needs_no_package_beyond_its_requirements() -> None:
    files = [path for name in ("worker", "producer_client") for path in (ROOT / name).rglob("*.py")]
    embedded = {path for path in files if path.is_relative_to(ROOT / "worker" / "embedded")}

    with_torch = {ROOT / "worker" / "encoder" / f"{name}.py" for name in WITH_TORCH}

    assert embedded
    assert _unmet([path for path in files if path not in embedded | TRACED], [SERVE, TORCH]) == {}
    lacking = _unmet([path for path in files if path not in embedded | TRACED | with_torch], [SERVE])
    assert lacking.keys() == {"torch"}, "load.py imports it where it is"


def test_traces_need_no_package_beyond_theirs() -> None:
    files = [path for name in ("worker", "producer_client") for path in (ROOT / name).rglob("*.py")]

    assert _unmet(files, [SERVE, TORCH, EMBEDDED, TRACING]) == {}


def test_the_demo_needs_no_package_for_tests_or_object_stores() -> None:
    files = [path for name in OURS for path in (ROOT / name).rglob("*.py")]

    assert _unmet([path for path in files if path not in TRACED], [SERVE, TORCH, EMBEDDED]) == {}


# --------------------------------------------------------------------------------------------- the lock


def test_the_locks_have_every_pin_and_all_that_the_pins_bring() -> None:
    pins = [pin for path in (SERVE, CLOUD, TRACING, TORCH) for pin in _pins(path)]
    locked = {pin.name: str(pin.specifier) for path in LOCKS for pin in _pins(path)}

    assert {pin.name: str(pin.specifier) for pin in pins}.items() <= _by_own_names(pins, locked).items()
    assert _closure(pins) <= locked.keys()


def test_the_locks_have_nothing_that_no_pin_brings_and_nothing_twice() -> None:
    pins = [pin for path in (SERVE, CLOUD, TRACING, TORCH) for pin in _pins(path)]
    lock, models, torch = ({pin.name for pin in _pins(path)} for path in LOCKS)

    assert lock | models <= _closure(pins)
    assert not lock & models
    assert not (lock | models) & torch


def test_the_lock_of_the_serving_image_is_what_it_needs_and_no_more() -> None:
    locked = {pin.name for pin in _pins(LOCKS[0])}

    assert locked == _closure(pin for path in (SERVE, CLOUD, TRACING) for pin in _pins(path))
    assert not {"torch", "torchvision", "open-clip-torch", "timm", "onnxscript", "setuptools"} & locked


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_the_lock_says_what_each_wheel_is_and_not_where_it_lies(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]

    assert lines == sorted(lines)
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line), line


def test_a_lock_is_written_of_what_pip_reports() -> None:
    report = _report(
        _package("Torch_Vision", "1.0"),
        _package("torchvision", "2.0"),
        _package("nvidia-x", "3.0"),
        _package("Tells", "4.0", needs=["shared; extra == 'more'", "other; python_version < '3'"]),
        _package("shared", "5.0"),
        _package("other", "6.0"),
    )

    written = locks(report, [Requirement("tells[more]")])

    pins = {name: [line.split()[0] for line in text.splitlines()[3:]] for name, text in written.items()}
    assert written["lock.txt"].splitlines()[3] == f"shared==5.0 --hash=sha256:{'0' * 64}"
    assert pins == {
        "lock.txt": ["shared==5.0", "tells==4.0"],
        "lock-models.txt": ["other==6.0", "torch-vision==1.0"],
        "lock-torch.txt": ["nvidia-x==3.0", "torchvision==2.0"],
    }
    assert "//" not in "".join(written.values())


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (lambda: _report(_package("a", "1.0", file="a-1.0.tar.gz")), "a is no wheel"),
        (lambda: _report(_package("a", "1.0", sha256="")), "a is no wheel with a SHA-256"),
        (lambda: _report(_package("a", "1.0"), python_version="3.12"), "resolved on .*3.12"),
    ],
    ids=["a source archive", "no hash", "another Python"],
)
def test_what_cannot_be_locked_for_the_image_is_refused(report: Callable[[], dict[str, Any]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        locks(report(), [])


def test_the_lock_is_for_the_python_of_the_image() -> None:
    [version] = set(re.findall(r"^FROM python:([\d.]+)-slim", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))

    assert IMAGE["python_version"] == version


# ----------------------------------------------------------------------------------------- the Makefile


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with nothing in it but what `make` reads, and a python that only notes what it is asked to do."""
    shutil.copytree(ROOT, tmp_path / "project", ignore=_but_for("Makefile", "requirements.txt", "requirements"))
    for name in ("pyproject.toml", "worker/pyproject.toml"):
        (tmp_path / "project" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "project" / name)
    python = tmp_path / "project" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> asked\n')
    python.chmod(0o755)
    return tmp_path / "project"


def test_a_demo_installs_what_it_needs_and_a_test_what_lacks(project: Path) -> None:
    demo, again, test, demo_after, test_after = (
        _installed(project, name) for name in ["demo", "demo", "test", "demo", "test"]
    )

    assert demo == ["requirements.txt", "requirements/torch.txt", "requirements/embedded.txt"]
    assert test == [str(path.relative_to(ROOT)) for path in FILES]
    assert again == demo_after == test_after == []


@pytest.mark.parametrize("target", ["setup", "lint", "format", "bench-dropin"])
def test_what_looks_at_all_code_has_everything(target: str, project: Path) -> None:
    for name in ("ruff", "mypy", "lint-imports"):
        (project / ".venv" / "bin" / name).symlink_to("python")

    assert "requirements/dev.txt" in _installed(project, target)
    assert _installed(project, "demo") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_another_pin_is_installed_by_who_needs_it(path: Path, project: Path) -> None:
    _installed(project, "setup")
    with (project / path.relative_to(ROOT)).open("a") as file:
        file.write("another==1.0  # reason\n")

    demo, test, after = (_installed(project, target) for target in ("demo", "test", "demo"))

    assert bool(demo) is (path in (SERVE, TORCH, EMBEDDED))
    assert "requirements/dev.txt" in test
    assert after == []


def _installed(project: Path, target: str) -> list[str]:
    """The files whose packages `make TARGET` installs, none where it finds them installed."""
    (project / "asked").write_text("")
    subprocess.run(["make", target], cwd=project, check=True, capture_output=True, timeout=60)
    return re.findall(r" -r (\S+)", (project / "asked").read_text())


# ----------------------------------------------------------------------------------------------- below


def _package(
    name: str,
    version: str,
    *,
    file: str = "x-1.0-py3-none-any.whl",
    sha256: str = "0" * 64,
    needs: Iterable[str] = (),
) -> dict[str, Any]:
    archive = {"url": f"https://index.example/{file}", "archive_info": {"hashes": {"sha256": sha256}}}
    metadata = {"name": name, "version": version, "requires_dist": list(needs)}
    return {"metadata": metadata, "download_info": archive}


def _report(*packages: dict[str, Any], **environment: str) -> dict[str, Any]:
    return {"environment": IMAGE | environment, "install": list(packages)}


def _by_own_names(pins: list[Requirement], locked: dict[str, str]) -> dict[str, str]:
    return {pin.name: locked.get(str(canonicalize_name(pin.name)), "") for pin in pins}


def _but_for(*names: str) -> Callable[[str, list[str]], set[str]]:
    """For copytree: leave out what lies at the top, but for these."""
    return lambda folder, found: set(found) - set(names) if Path(folder) == ROOT else set()


def _pins(path: Path) -> list[Requirement]:
    lines = (re.split("#| --hash", line)[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def _unmet(files: Iterable[Path], requirements: Iterable[Path]) -> dict[str, set[str]]:
    """Modules of others that files import, with their distributions, where none comes with these requirements."""
    there = _closure(pin for path in requirements for pin in _pins(path))
    known = packages_distributions()
    wanted = {name for path in files for name in _imported(path)} - set(sys.stdlib_module_names) - OURS
    assert {"numpy", "celery", "torch"} <= wanted
    from_where = {name: {str(canonicalize_name(found)) for found in known.get(name, [])} for name in wanted}
    return {name: found for name, found in from_where.items() if not found & there}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _closure(pins: Iterable[Requirement]) -> set[str]:
    """Distributions that come with these ones, by what those installed here say that they need."""
    return closure(pins, _Needed())


class _Needed(dict[str, list[str]]):
    def get(self, name: str, default: Any = ()) -> Any:
        try:
            return distribution(name).requires or default
        except PackageNotFoundError:
            return default  # for another platform
