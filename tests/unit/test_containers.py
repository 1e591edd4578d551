"""The container test's own checks, without containers: what is lost is counted, what is open is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.containers.checks import KEPT, SETS, locked_down, processes
from tests.containers.images import EARLIER, TARGETS, paths_of, pip_conf, pip_settings, stages
from tests.containers.ledger import Row, Sent, judge, lacking
from tests.containers.machine import Failed, lacks, run
from tests.containers.stack import OURS, SERVERS

ROOT = Path(__file__).parents[2]
WELL = [Row(1, "/photos/a", 1), Row(2, "/photos/b", 1)]
SENT = [Sent("/photos/a", 1), Sent("/photos/b")]


# --------------------------------------------------------------------------------------- what is lost


def test_what_was_answered_and_what_waited_is_there_once() -> None:
    assert judge(SENT, WELL) == judge([], [])


@pytest.mark.parametrize(
    ("sent", "rows", "fault"),
    [
        (SENT, WELL[1:], "/photos/a is not there"),
        (SENT, [*WELL, Row(3, "/photos/b", 1)], "/photos/b is there 2 times"),
        (SENT, [Row(9, "/photos/a", 1), WELL[1]], "/photos/a was answered as photo 1 and is photo 9"),
        (SENT, [WELL[0], Row(2, "/photos/b", 0)], "/photos/b has 0 vectors"),
        ([Sent("/photos/a", refused="not_ready")], WELL, "/photos/a was refused: not_ready"),
    ],
    ids=["absent", "twice", "another's id", "without a vector", "refused"],
)
def test_a_photo_that_is_not_there_as_it_was_told_is_lost(sent: list[Sent], rows: list[Row], fault: str) -> None:
    verdict = judge(sent, rows)

    assert verdict.lost == [fault]
    assert verdict.gone == []


def test_what_nobody_answered_and_nobody_has_is_gone_and_messages_that_wait_for_ever_are_lost() -> None:
    verdict = judge(SENT, WELL[:1], waiting=3)

    assert verdict.gone == ["/photos/b is not there"]
    assert verdict.lost == ["3 messages wait, and nobody takes them"]


def test_what_was_there_before_is_there_after_with_its_id() -> None:
    before = {"/photos/a": 1, "/photos/b": 2}

    assert lacking(before, [*WELL, Row(3, "/photos/c", 1)]) == []
    assert lacking(before, WELL[:1]) == ["/photos/b is photo None, and was 2"]
    assert lacking(before, [WELL[0], Row(2, "/photos/b", 0)]) == ["/photos/b is photo None, and was 2"]
    assert lacking(before, [*WELL, Row(3, "/photos/c", 1), Row(4, "/photos/c", 1)]) == ["/photos/c is there 2 times"]


# --------------------------------------------------------------------------------------- what is open

STATUS = """
Name:	sightline
Pid:	7
Uid:	10001	10001	10001	10001
Gid:	10001	10001	10001	10001
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
"""


def test_a_process_that_may_nothing_is_locked_down_and_the_one_that_asks_is_not_counted() -> None:
    found = processes(f"{STATUS}\n{STATUS.replace('sightline', 'cat')}")

    assert [one["Pid"] for one in found] == ["7"]
    assert list(locked_down(found[0], user="10001", bounds=0)) == []


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("Uid", "10001	0	10001	10001", "sightline (7) has Uid"),
        ("Gid", "0	0	0	0", "sightline (7) has Gid"),
        *((field, "0000000000000400", f"sightline (7) has {field} 0x400") for field in SETS),
        ("NoNewPrivs", "0", "sightline (7) may get new rights"),
        ("Seccomp", "0", "sightline (7) has no filter of calls"),
    ],
)
def test_a_process_that_may_more_is_seen(field: str, value: str, fault: str) -> None:
    [process] = processes(STATUS)

    [found] = locked_down(process | {field: value}, user="10001", bounds=KEPT)

    assert found.startswith(fault)


def test_a_server_may_come_by_five_rights_and_has_none() -> None:
    [process] = processes(STATUS)

    assert f"{KEPT:#x}" == "0xcb"
    assert list(locked_down(process | {"CapBnd": f"{KEPT:016x}", "Gid": "101 101 101 101"}, user="", bounds=KEPT)) == []
    assert list(locked_down(process | {"CapEff": f"{KEPT:016x}"}, user="", bounds=KEPT)) != []
    assert list(locked_down(process | {"Uid": "0 0 0 0"}, user="", bounds=KEPT)) != []


# ------------------------------------------------------------------------------------ what it stands on


def test_the_package_index_of_the_machine_is_told_and_mounted_and_the_environment_wins(tmp_path: Path) -> None:
    for name in ("index/simple", "wheels", "ca"):
        (tmp_path / name).mkdir(parents=True)
    listed = "\n".join(
        [
            "global.cert='/elsewhere'",
            f"global.extra-index-url='file://{tmp_path}/index/simple https://index.example/simple'",
            f"global.find-links='{tmp_path}/wheels\\n{tmp_path}/wheels'",
            f":env:.cert='{tmp_path}/ca'",
        ]
    )

    settings = pip_settings(listed)

    assert settings["cert"] == [f"{tmp_path}/ca"]
    assert pip_conf(settings).startswith(f"[global]\ncert = {tmp_path}/ca\n")
    assert f"extra-index-url = file://{tmp_path}/index/simple https://index.example/simple\n" in pip_conf(settings)
    # With the folder beside `simple` that its pages lead to.
    assert paths_of(settings) == [tmp_path / "ca", tmp_path / "index", tmp_path / "wheels"]


def test_the_override_names_every_service_that_is_started_and_changes_nothing_else() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!reset", lambda loader, node: {})
    override = yaml.load((ROOT / "tests/containers/override.yml").read_text(), Loader)["services"]
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    assert override.keys() == composed.keys() - {"worker-gpu"}
    assert {*SERVERS, "migrate", *OURS} <= override.keys()
    assert {key for service in override.values() for key in service} == {"logging", "depends_on"}


def test_the_stages_that_are_built_are_those_of_the_dockerfile() -> None:
    found = stages(ROOT / "deploy/Dockerfile")

    assert len(found) == (ROOT / "deploy/Dockerfile").read_text().count("\nFROM ")
    assert {"wheels", "cpu"} <= set(found)
    assert found.index("cpu") == max(found.index(target) for target in TARGETS if target in found)


def test_elsewhere_it_says_what_it_needs_and_does_nothing(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
    other = tmp_path / "other"
    other.write_text('PRETTY_NAME="Fedora Linux 43"\nID=fedora\n')

    assert lacks(0, release) == ""
    assert "needs root on Debian; here is user 1000 on Debian GNU/Linux 12" in lacks(1000, release)
    assert "needs root on Debian; here is root on Fedora Linux 43" in lacks(0, other)
    assert "an unknown system" in lacks(0, tmp_path / "absent")
    assert "debootstrap" in lacks(1000, release)


def test_a_program_that_fails_is_told_with_its_last_words_and_one_that_hangs_is_ended() -> None:
    assert run([sys.executable, "-c", "print('said')"]) == "said\n"
    with pytest.raises(Failed, match="ended with 3:\nwhy"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('why'); sys.exit(3)"])
    with pytest.raises(Failed, match="not ended after 0 s"):
        run(["sleep", "71"], limit_s=0.2)
    assert subprocess.run(["pgrep", "-fx", "sleep 71"], capture_output=True, check=False).stdout == b""


def test_the_release_before_is_a_commit_of_this_history() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no history here")
    known = subprocess.run(["git", "-C", ROOT, "merge-base", "--is-ancestor", EARLIER, "HEAD"], check=False)

    assert known.returncode in (0, 128), "128: a shallow clone"
