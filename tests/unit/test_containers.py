"""The container test's own checks, without containers: what is lost is counted, what is open is seen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import __main__ as command
from tests.containers import engine as engines
from tests.containers import firewall, machine
from tests.containers.checks import KEPT, SETS, locked_down, processes
from tests.containers.images import EARLIER, TARGETS, paths_of, pip_conf, pip_settings, stages
from tests.containers.ledger import Row, Sent, judge, lacking
from tests.containers.machine import Failed, lacks, lacks_space, run, shown
from tests.containers.stack import OURS, SERVERS, override
from tests.containers.trial import in_guide

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
    overridden = _overridden((ROOT / "tests/containers/override.yml").read_text())
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    assert overridden.keys() == composed.keys() - {"worker-gpu"}
    assert {*SERVERS, "migrate", *OURS} <= overridden.keys()
    assert {key for service in overridden.values() for key in service} == {"logging", "depends_on"}


def test_the_override_names_no_service_that_an_earlier_release_had_not() -> None:
    had = {"redis", "postgres", "migrate", "worker-cpu", "worker-gpu", "index", "beat"}

    found = _overridden(override(had))

    assert found.keys() == had - {"worker-gpu"}
    assert found["index"].keys() == {"logging", "depends_on"}


def _overridden(text: str) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!reset", lambda loader, node: {})
    found: dict[str, Any] = yaml.load(text, Loader)["services"]
    return found


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


@pytest.mark.parametrize(("kept_gb", "free_gb", "wanted"), [(0, 34, "35"), (20, 14, "15"), (40, 2, "3")])
def test_without_room_for_the_images_it_says_how_much_is_needed_before_anything_is_done(
    kept_gb: int, free_gb: int, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not" / "there yet"
    monkeypatch.setattr(machine, "_bytes_in", lambda path: {folder: kept_gb * 1e9}[path])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(free_gb * 1e9)))

    said = lacks_space(folder)

    assert f"{free_gb}.0 GB are free for {folder}, where {kept_gb}.0 GB lie already; {wanted} GB more" in said
    assert "--folder" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int((int(wanted) + 1) * 1e9)))
    assert lacks_space(folder) == ""


def test_what_lies_in_the_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "one").write_bytes(os.urandom(100_000))
    (tmp_path / "gone").symlink_to("nowhere")

    assert 100_000 <= machine._bytes_in(tmp_path) < 200_000
    assert machine._bytes_in(tmp_path / "absent") == 0


def test_a_step_says_that_it_goes_on_what_it_does_just_now_and_how_long_it_took(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SHOWN_AFTER_S", 0.02)
    monkeypatch.setattr(machine, "SHOWN_EVERY_S", 0.02)

    with shown("building"):
        run(["sh", "-c", "echo layer 1; echo layer 2; sleep 0.3"], told="copying")
        time.sleep(0.1)
    with shown("short"):
        pass
    said = capsys.readouterr().err.splitlines()

    assert said[0] == "building ..."
    assert {"  copying ...", "    copying, 0 s: layer 2", "  copying: 0 s", "  building, 0 s", "building: 0 s"} <= set(
        said
    )
    # Of two within each other, the innermost.
    assert "  building, 0 s" not in said[: said.index("  copying: 0 s")]
    assert not [line for line in said if "short" in line]


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


# ------------------------------------------------------------------------------------ what it leaves behind

#: As `iptables --table nat --list-rules` writes it, before and after the last container of a network.
OF_THE_MACHINE = ["-P PREROUTING ACCEPT", "-P POSTROUTING ACCEPT", "-N DOCKER", "-A PREROUTING -j DOCKER"]
LEFT = [
    *OF_THE_MACHINE[:3],
    "-N NETAVARK-DN-8A5224AB3481B",
    "-N NETAVARK-HOSTPORT-DNAT",
    "-N NETAVARK-HOSTPORT-MASQ",
    OF_THE_MACHINE[3],
    "-A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT",
    "-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ",
    '-A NETAVARK-HOSTPORT-MASQ -m comment --comment "netavark portfw masq mark" -j MASQUERADE',
]


def test_what_came_to_the_tables_of_packets_goes_and_the_rest_stays() -> None:
    assert list(firewall.undone(OF_THE_MACHINE, LEFT)) == [
        ["-D", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "NETAVARK-HOSTPORT-DNAT"],
        ["-D", "POSTROUTING", "-j", "NETAVARK-HOSTPORT-MASQ"],
        ["-F", "NETAVARK-DN-8A5224AB3481B"],
        ["-F", "NETAVARK-HOSTPORT-DNAT"],
        ["-F", "NETAVARK-HOSTPORT-MASQ"],
        ["-X", "NETAVARK-DN-8A5224AB3481B"],
        ["-X", "NETAVARK-HOSTPORT-DNAT"],
        ["-X", "NETAVARK-HOSTPORT-MASQ"],
    ]
    assert list(firewall.undone(LEFT, LEFT)) == []


def test_what_somebody_else_has_put_there_meanwhile_stays() -> None:
    assert list(firewall.undone([], OF_THE_MACHINE)) == []
    # A network of somebody else's, which goes through the same chains.
    theirs = "NETAVARK-1D8721804F16F"
    for used in (f"-A POSTROUTING -s 10.89.0.0/24 -j {theirs}", f"-A {theirs} -d 10.89.0.0/24 -j ACCEPT"):
        assert list(firewall.undone(OF_THE_MACHINE, [*LEFT, f"-N {theirs}", used])) == []


def test_mounts_below_a_folder_are_found_the_innermost_first() -> None:
    places = ["/a/made/proc", "/a", "/a/made", "/ab", r"/a/made/with\040blank", "/a/made/proc/fs"]
    listed = "".join(f"none {place} proc rw 0 0\n" for place in places)

    found = engines.mounted(Path("/a"), listed)

    assert found == [Path(f"/a/{name}") for name in ("made/with blank", "made/proc/fs", "made/proc", "made")]


@pytest.fixture
def machine_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an Engine does to the machine, without one: commands, and the state of its switch."""
    forwarding = tmp_path / "ip_forward"
    forwarding.write_text("0\n")
    done: list[list[str]] = []
    seen = {"tables": {"iptables nat": OF_THE_MACHINE}, "done": done, "forwarding": forwarding}
    monkeypatch.setattr(engines, "FORWARDING", forwarding)
    monkeypatch.setattr(engines, "tables", lambda: seen["tables"])

    def run(words: list[object], **how: object) -> str:
        done.append([str(word) for word in words])
        return ""

    monkeypatch.setattr(engines, "run", run)
    return seen


def _engine(folder: Path) -> engines.Engine:
    engine = engines.Engine(folder / "kept")
    engine._running = folder / "run"
    return engine


def test_the_end_puts_the_machine_back_and_is_not_broken_off(
    tmp_path: Path, machine_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = machine_settings
    removed: list[bool] = []
    # Of another test, perhaps, which has run a command in this process.
    before = signal.getsignal(signal.SIGINT)

    def remove_all(engine: engines.Engine) -> None:
        if seen["tables"]["iptables nat"] == LEFT:
            os.kill(os.getpid(), signal.SIGINT)
        removed.append(True)

    monkeypatch.setattr(engines.Engine, "remove_all", remove_all)

    def stopped() -> None:
        with _engine(tmp_path):
            seen["tables"] = {"iptables nat": LEFT}
            seen["forwarding"].write_text("1\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()

    assert removed == [True, True]
    assert seen["forwarding"].read_text() == "0\n"
    assert [words for words in seen["done"] if words[0] == "iptables"] == [
        ["iptables", "--wait", "--table", "nat", *words] for words in firewall.undone(OF_THE_MACHINE, LEFT)
    ]
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_killed_run_has_changed_is_put_back_by_the_next(
    tmp_path: Path, machine_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.Engine, "remove_all", lambda engine: None)
    killed = _engine(tmp_path)
    killed.__enter__()
    killed._lock.close()
    machine_settings["tables"] = {"iptables nat": LEFT}
    machine_settings["forwarding"].write_text("1\n")

    with _engine(tmp_path):
        pass

    assert machine_settings["forwarding"].read_text() == "0\n"
    assert ["iptables", "--wait", "--table", "nat", "-X", "NETAVARK-HOSTPORT-DNAT"] in machine_settings["done"]


def test_one_that_is_stopped_says_so_and_ends_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(machine, "lacks", lambda user, release: "")
    monkeypatch.setattr(machine, "lacks_space", lambda folder: "")
    monkeypatch.setattr(machine, "install", stop)
    monkeypatch.setattr(sys, "argv", ["tests.containers", "--folder", str(tmp_path)])
    before = {number: signal.getsignal(number) for number in engines.SIGNALS}
    try:
        ended = command.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert ended == 130
    assert "stopped" in capsys.readouterr().err


def test_the_guide_has_the_commands_that_are_run_as_it_says() -> None:
    commands = [in_guide(word) for word in ("export", "pg_dump", "pg_restore")]

    assert commands[0] == "run --rm worker-cpu export"
    assert commands[1].startswith("exec -T postgres pg_dump ")
    assert commands[2].startswith("exec -T postgres pg_restore ")
