"""The manifests of deploy/kubernetes, held against Kubernetes' schemas and the code that they start. No cluster."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from producer_client import contract
from producer_client.connection import DEFAULT_TIMEOUT_S
from producer_client.contract import Queue
from worker.commands.metrics import PORT
from worker.joined import join
from worker.observe.names import REDIS
from worker.processes import ROLES
from worker.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
GUIDE = FOLDER / "README.md"
EXAMPLE = FOLDER / "example"
SECRETS = FOLDER / "secret.example.yaml"
KUBERNETES = "1.37"

FILES = sorted(FOLDER.rglob("*.yaml"))
SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
#: Kinds that Kubernetes itself does not know, whose schemas nothing of ours carries.
OTHERS = ("kustomize.config.k8s.io/", "keda.sh/")
#: What writes to where it is mounted; all else is read-only.
WRITTEN = {"/tmp", "/var/lib/sightline/index", "/var/lib/sightline/models", "/var/lib/sightline/huggingface"}


@cache
def documents() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, document) for path in FILES for document in yaml.safe_load_all(path.read_text())]


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    """By name, as they stand in the files."""
    return {document["metadata"]["name"]: document for _, document in documents() if document["kind"] in kinds}


def pods() -> dict[str, dict[str, Any]]:
    """The pod of each workload by its name, servers among them."""
    return {
        name: found["spec"]["template"]
        for name, found in of_kind("Deployment", "StatefulSet", "Job", "CronJob").items()
    }


def ours() -> dict[str, dict[str, Any]]:
    return {name: pod["spec"] for name, pod in pods().items() if name not in ("redis", "postgres")}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [only] = pod["containers"]
    found: dict[str, Any] = only
    return found


def settings_env() -> dict[str, str]:
    lines = (FOLDER / "base" / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def rendered(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send. Skips where there is no kubectl: what it renders is tested without, too."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


# ---------------------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_manifest_follows_the_schema_of_its_kind(path: Path) -> None:
    for where, document in documents():
        if where == path and not document["apiVersion"].startswith(OTHERS):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_every_manifest_is_of_some_kustomization() -> None:
    named = {
        (path.parent / resource).resolve()
        for path, document in documents()
        if document["apiVersion"].startswith("kustomize.config.k8s.io/")
        for resource in [*document.get("resources", []), *document.get("components", [])]
    }
    applied = {path for path in FILES if path.name != "kustomization.yaml"} - {SECRETS}

    assert {path for path in named if path.is_file()} == applied
    assert {path for path in named if path.is_dir()} <= {FOLDER / "base", FOLDER / "servers"}


def test_the_example_renders_whole_and_follows_the_schemas(tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, folder)
    example = folder / "example" / "kustomization.yaml"
    # With every component that it has as a comment.
    example.write_text(re.sub(r"^  # - (\.\./\w+)$", r"  - \1", example.read_text(), flags=re.MULTILINE))

    found = rendered(example.parent)

    names = {f"{document['kind']}/{document['metadata']['name']}" for document in found}
    assert {"Deployment/worker-gpu", "Deployment/worker-cpu", "StatefulSet/redis", "Job/migrate"} <= names
    assert all(
        document["metadata"].get("namespace") == "sightline" for document in found if document["kind"] != "Namespace"
    )
    for document in found:
        if not document["apiVersion"].startswith(OTHERS):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    images = {
        document["metadata"]["name"]: container(document["spec"]["template"]["spec"])["image"]
        for document in found
        if document["kind"] in ("Deployment", "Job")
    }
    apart = {"worker-cpu": "serve", "worker-gpu": "gpu"}
    assert images == {name: f"REGISTRY/sightline-{apart.get(name, 'cpu')}:1" for name in ours()}
    assert set(apart.values()) < _stages()
    assert all(document["kind"] != "Secret" for document in found)


def test_what_a_migration_needs_is_applied_before_the_rest() -> None:
    before = [
        document for document in rendered(EXAMPLE) if document["metadata"].get("labels", {}).get("step") == "before"
    ]
    kinds = {document["kind"] for document in before}

    assert {"Namespace", "ConfigMap", "ServiceAccount", "NetworkPolicy", "Job", "StatefulSet", "Service"} <= kinds
    assert "Deployment" not in kinds
    [policies] = [[d["metadata"]["name"] for d in before if d["kind"] == "NetworkPolicy"]]
    assert set(policies) >= {"names", "servers"}


# ------------------------------------------------------------------------------------------- what runs


def test_every_variable_is_a_setting_and_every_process_starts_with_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "\n".join(path.read_text() for path in [*FILES, FOLDER / "base" / "settings.env", GUIDE])
    examples = {
        document["metadata"]["name"]: document["stringData"]
        for _, document in documents()
        if document["kind"] == "Secret"
    }

    assert set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+\b", text)) <= SETTINGS
    for name, pod in ours().items():
        given = settings_env() | {one["name"]: one["value"] for one in container(pod).get("env", [])}
        for variable in ("SIGHTLINE_BROKER_URL_FILE", "SIGHTLINE_DATABASE_URL_FILE"):
            mounted = Path(given[variable])
            file = tmp_path / f"{name}-{mounted.name}"
            file.write_text(examples["sightline"][mounted.name])
            file.chmod(0o600)
            given[variable] = str(file)
            assert mounted.parent == Path("/run/secrets/sightline")
        for variable in SETTINGS:
            monkeypatch.delenv(variable, raising=False)
        for variable, value in given.items():
            monkeypatch.setenv(variable, value)
        settings = Settings()
        assert settings.broker_url == "redis://:REPLACE_ME@redis:6379/5"
        assert settings.photo_roots == (Path("/photos"),)
        # Anywhere else nothing can be written.
        mounts = {mount["mountPath"] for mount in container(pod)["volumeMounts"] if not mount.get("readOnly")}
        assert mounts <= WRITTEN
        folders = [settings.data_dir]
        if name not in ("beat", "migrate", "metrics"):
            folders += [settings.generations_dir, settings.exports_dir, Path(given["HF_HOME"])]
        assert [folder for folder in folders if not any(folder.is_relative_to(mount) for mount in mounts)] == []


def test_workloads_run_commands_and_images_that_exist_and_serve_every_queue() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    served = {}
    for name, pod in ours().items():
        words = [str(word) for word in container(pod)["args"]]
        parameters = _parsed(words)
        kind = container(pod)["image"].removeprefix("sightline-")
        assert kind in _stages()
        assert "command" not in container(pod), "the image's entry point is the command"
        if name in compose:
            assert words == [str(word) for word in compose[name]["command"]]
            assert f"sightline:{kind}" == compose[name]["image"]
        if words[0] == "worker":
            named = parameters["queues"]
            served[name] = set(named.split(",")) if named else {queue.value for queue in ROLES[parameters["role"]]}

    assert ours().keys() >= {"worker-cpu", "worker-gpu", "index", "beat", "migrate"}
    assert served["worker-cpu"] == served["worker-gpu"] == {queue.value for queue in ROLES["serve"]}
    assert set.union(*served.values()) == {queue.value for queue in Queue}


def test_every_process_that_stays_is_probed_as_it_is_to_be() -> None:
    staying = {name: container(pod) for name, pod in ours().items() if name not in ("migrate", "metrics")}

    for name, found in staying.items():
        asked = {kind: found[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        words = {kind: probe["exec"]["command"] for kind, probe in asked.items()}
        assert words["startup"] == words["liveness"] == ["sightline", "health", "--live"], name
        assert words["readiness"] == ["sightline", "health", "--ready"], name
        # A second is what Kubernetes gives a probe, and on a busy node this one takes longer.
        assert all(probe["timeoutSeconds"] >= 5 for probe in asked.values()), name
        assert asked["startup"]["periodSeconds"] * asked["startup"]["failureThreshold"] >= 60
        assert asked["liveness"]["failureThreshold"] >= 2
        for command in words.values():
            _parsed(command[1:])
    for name in ("redis", "postgres"):
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container(pods()[name]["spec"]).keys()


def test_no_pod_may_do_more_than_it_needs() -> None:
    for name, pod in pods().items():
        spec = pod["spec"]
        uid = 999 if name in ("redis", "postgres") else 10001
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": uid,
            "fsGroup": uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert container(spec)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
    assert f"USER {10001}:{10001}" in (ROOT / "deploy" / "Dockerfile").read_text()
    assert {pod["serviceAccountName"] for pod in ours().values()} == of_kind("ServiceAccount").keys()


def test_no_variable_of_a_service_is_read_as_a_setting() -> None:
    # Of a Service `sightline-metrics` every pod gets SIGHTLINE_METRICS_PORT=tcp://10.0.0.7:9464.
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods().values())


def test_every_container_has_its_share_and_none_is_slowed_down() -> None:
    for name, pod in pods().items():
        given = container(pod["spec"])["resources"]
        assert {"cpu", "memory"} <= given["requests"].keys(), name
        assert "memory" in given["limits"], name
        assert _mebibytes(given["requests"]["memory"]) <= _mebibytes(given["limits"]["memory"]), name
        # A limit of CPU has a worker wait in the middle of a pass, with its photos in hand.
        assert "cpu" not in given["limits"], name
    gpu = container(ours()["worker-gpu"])["resources"]
    assert gpu["limits"]["nvidia.com/gpu"] == gpu["requests"]["nvidia.com/gpu"] == 1


def test_what_a_pod_may_write_into_memory_counts_into_its_limit() -> None:
    for name, pod in ours().items():
        [tmp] = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp"]
        assert tmp["medium"] == "Memory", name
        assert _mebibytes(tmp["sizeLimit"]) < _mebibytes(container(pod)["resources"]["limits"]["memory"]), name


def test_a_pod_is_left_the_time_to_end_what_it_has_in_hand() -> None:
    for name, pod in ours().items():
        if name in ("migrate", "metrics"):
            continue
        seconds = pod["terminationGracePeriodSeconds"]
        # It is gone ten seconds after its grace (0049), on a node that has time for it.
        assert seconds >= Settings.model_fields["stop_grace_s"].default + 10 + 15
        # Ours would be process 1 otherwise, which ignores SIGTERM while it loads its model.
        assert pod["shareProcessNamespace"] is True


def test_an_upgrade_leaves_workers_that_answer_and_a_drained_node_too() -> None:
    budgets = of_kind("PodDisruptionBudget")

    rolling = of_kind("Deployment")["worker-cpu"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    for name in ("index", "beat"):
        assert of_kind("Deployment")[name]["spec"]["strategy"] == {"type": "Recreate"}
    assert budgets.keys() == {"worker", "worker-gpu"}
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"], "one worker alone would keep its node from being drained"
        assert any(_selects(budget["spec"]["selector"], pod) for pod in pods().values())
    # `apply` would undo what scales it.
    assert "replicas" not in of_kind("Deployment")["worker-cpu"]["spec"]


# --------------------------------------------------------------------------------- network and secrets


def test_nothing_is_reached_but_what_is_named() -> None:
    policies = {name: policy["spec"] for name, policy in of_kind("NetworkPolicy").items()}
    ports = {
        name: {rule_port["port"] for rule in policy.get("egress", []) for rule_port in rule["ports"]}
        for name, policy in policies.items()
    }

    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    out = {"names": {53}, "servers": {6379, 5432}, "objects": {443}, "traces": {4318}}
    assert {name: found for name, found in ports.items() if found} == out
    assert policies["keda-to-redis"]["podSelector"] == policies["to-redis"]["podSelector"]
    assert all("ports" in rule for policy in policies.values() for rule in policy.get("ingress", []))
    reached = {name for name in pods() if _selects({**policies["objects"]["podSelector"]}, pods()[name])}
    assert reached == {"worker-cpu", "worker-gpu", "index"}
    assert {name for name in ours() if not _selects(policies["servers"]["podSelector"], pods()[name])} == set()
    for name in ("redis", "postgres"):
        assert _selects(policies[f"to-{name}"]["podSelector"], pods()[name])


def test_prometheus_is_let_in_where_a_process_answers_it() -> None:
    given = settings_env()
    answering = {
        name: (container(pod["spec"])["ports"], pod["metadata"]["annotations"])
        for name, pod in pods().items()
        if name in ours() and "ports" in container(pod["spec"])
    }
    by_name = {
        **dict.fromkeys(("worker-cpu", "worker-gpu", "index", "beat"), int(given["SIGHTLINE_METRICS_PORT"])),
        "metrics": PORT,
    }

    assert given["SIGHTLINE_METRICS_HOST"] == "0.0.0.0"
    assert answering.keys() == by_name.keys()
    for name, (ports, noted) in answering.items():
        assert ports == [{"name": "metrics", "containerPort": by_name[name]}]
        assert noted == {"prometheus.io/scrape": "true", "prometheus.io/port": str(by_name[name])}
    policy = of_kind("NetworkPolicy")["metrics"]["spec"]
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "metrics"}]
    # A page would ask Redis and Postgres, and start again what cannot help it.
    probes = {kind: container(ours()["metrics"])[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert all(probe["tcpSocket"] == {"port": "metrics"} for probe in probes.values())


def test_secrets_are_mounted_as_files_that_their_group_alone_can_read() -> None:
    for name, pod in ours().items():
        [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        # Of root, and of fsGroup's group: worker/secrecy.py refuses one that others can read.
        assert secret == {"secretName": "sightline", "defaultMode": 0o440}, name
        assert not any("valueFrom" in one for one in container(pod).get("env", [])), name
        assert all(set(source) == {"configMapRef"} for source in container(pod)["envFrom"]), name


def test_no_secret_is_in_the_repository() -> None:
    found = {document["metadata"]["name"]: document for path, document in documents() if document["kind"] == "Secret"}

    assert {path for path, document in documents() if document["kind"] == "Secret"} == {SECRETS}
    assert all("data" not in document for document in found.values())
    values = {f"{name}.{key}": value for name, one in found.items() for key, value in one["stringData"].items()}
    assert {key for key, value in values.items() if "REPLACE_ME" not in value} == {"keda.username"}
    asked = {
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for pod in pods().values()
        for one in container(pod["spec"]).get("env", [])
        if "valueFrom" in one
    }
    asked |= {(one["name"], one["key"]) for one in of_kind("TriggerAuthentication")["redis"]["spec"]["secretTargetRef"]}
    assert asked <= {(name, key) for name, document in found.items() for key in document["stringData"]}


def test_the_servers_to_try_with_lose_no_message_and_are_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    args = container(pods()["redis"]["spec"])["args"]
    options = dict(zip(args[1::2], args[2::2], strict=True))

    assert (options["--maxmemory-policy"], options["--appendonly"], options["--save"]) == ("noeviction", "yes", "")
    for name in ("redis", "postgres"):
        assert container(pods()[name]["spec"])["image"] == compose[name]["image"]
        assert of_kind("StatefulSet")[name]["spec"]["serviceName"] == name
    services = {name for name, one in of_kind("Service").items() if "selector" in one["spec"]}
    assert services >= {"redis", "postgres"}


# --------------------------------------------------------------------------------------- scaling by KEDA

#: Fields of KEDA's objects (keda.sh/docs/2.19: reference/scaledobject-spec, scalers/prometheus, redis-lists). No
#: package has its schemas.
SCALED = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers", "pollingInterval"}
TRIGGER = {"type", "name", "metricType", "metadata", "authenticationRef"}
METADATA = {
    "prometheus": ({"serverAddress", "query", "threshold"}, {"ignoreNullValues"}),
    "redis": ({"address", "listName", "listLength"}, {"databaseIndex"}),
}


def scaled() -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("ScaledObject")["worker-cpu"]["spec"]
    return spec


def triggers() -> dict[str, dict[str, Any]]:
    return {trigger["name"]: trigger for trigger in scaled()["triggers"]}


def test_what_scales_workers_has_the_fields_that_keda_documents() -> None:
    spec = scaled()

    assert spec.keys() <= SCALED
    assert spec["scaleTargetRef"] == {"name": "worker-cpu"}
    assert spec["fallback"].keys() == {"failureThreshold", "replicas", "behavior"}
    assert len(triggers()) == len(spec["triggers"]), "names are unique"
    for trigger in spec["triggers"]:
        needed, allowed = METADATA[trigger["type"]]
        assert trigger.keys() <= TRIGGER
        assert needed <= trigger["metadata"].keys() <= needed | allowed
        assert all(isinstance(value, str) for value in trigger["metadata"].values()), "a map of strings"
        assert trigger["metricType"] in ("Value", "AverageValue")
    # What the autoscaler is told is Kubernetes' own, and has a schema.
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker-cpu"}
    autoscaler = {"scaleTargetRef": target, "maxReplicas": spec["maxReplicaCount"], "behavior": behaviour}
    whole = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": autoscaler,
    }
    kubernetes_validate.validate(whole, KUBERNETES, strict=True)


def test_workers_are_scaled_by_age_and_by_what_waits_and_is_in_hand() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    by_age = {name: trigger for name, trigger in triggers().items() if trigger["metricType"] == "Value"}
    by_count = {name: trigger for name, trigger in triggers().items() if trigger["metricType"] == "AverageValue"}
    per_worker = {
        trigger["metadata"].get("threshold") or trigger["metadata"]["listLength"] for trigger in by_count.values()
    }

    assert by_age.keys() == {"age-of-questions", "age-of-bulk"}
    assert per_worker == {str(defaults["concurrency"])}
    # Scraped (15 s), asked for (15 s), and a pod started with its model loaded (20 s), before a caller gives up.
    assert float(by_age["age-of-questions"]["metadata"]["threshold"]) + 15 + 15 + 20 <= DEFAULT_TIMEOUT_S
    # Postgres has a hundred connections, of which the index process and its kind need some.
    assert scaled()["maxReplicaCount"] * (defaults["concurrency"] + 6) <= 100 - 10
    assert scaled()["minReplicaCount"] >= 1
    # No series is no age of 0.
    assert {t["metadata"]["ignoreNullValues"] for t in triggers().values() if t["type"] == "prometheus"} == {"false"}


def test_keda_counts_the_keys_of_our_queues() -> None:
    keys = {name: t["metadata"]["listName"] for name, t in triggers().items() if t["type"] == "redis"}
    prefix = contract.DEFAULT_KEY_PREFIX

    assert keys == {"questions": prefix + Queue.INTERACTIVE, "bulk": prefix + Queue.BULK, "in-hand": f"{prefix}unacked"}
    database = {t["metadata"]["databaseIndex"] for t in triggers().values() if t["type"] == "redis"}
    assert database == {str(Settings.model_fields["broker_url"].default.rpartition("/")[2])}
    [secret] = {t["authenticationRef"]["name"] for t in triggers().values() if t["type"] == "redis"}
    [named] = of_kind("TriggerAuthentication")
    assert secret == named


def test_what_scales_in_waits_and_ends_one_at_a_time() -> None:
    behaviour = scaled()["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 300
    assert behaviour["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    # Not more before the last ones help.
    assert all(policy["periodSeconds"] >= 60 for policy in behaviour["scaleUp"]["policies"])


def test_every_metric_that_scales_is_one_that_is_exported() -> None:
    queries = " ".join(t["metadata"]["query"] for t in triggers().values() if t["type"] == "prometheus")
    named = set(re.findall(r"\bsightline_\w+", queries))

    assert named == {"sightline_queue_oldest_age_seconds", "sightline_queue_ready", "sightline_queue_in_hand"}
    assert named <= {metric.name for metric in REDIS.values()}
    assert set(re.findall(r'[=~]"([a-z|]+)"', queries)) <= {"interactive", "bulk", "interactive|bulk"}


# ------------------------------------------------------------------------------------------- the page


def test_the_page_shows_commands_that_can_be_read() -> None:
    lines = re.findall(r"^    ((?:kubectl|docker) .*)$", GUIDE.read_text(), re.MULTILINE)
    lines += re.findall(r"`(kubectl [^`]+)`", re.sub(r"\n *", " ", GUIDE.read_text()))
    verbs = {"apply", "create", "delete", "exec", "get", "kustomize", "logs", "rollout", "scale", "wait"}

    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "docker" or verbs & set(words[1:4]), line
        inside = words[words.index("--") + 1 :] if "--" in words else []
        if inside[:1] == ["sightline"]:
            _parsed(inside[1:])
    for name in re.findall(r"(?:deployment|job)/([a-z-]+)", GUIDE.read_text()):
        assert name in pods()
    for path in re.findall(r"\bdeploy/kubernetes/[\w./-]+\b", GUIDE.read_text()):
        assert (ROOT / path).exists() or path == "deploy/kubernetes/mine", path


# ------------------------------------------------------------------------------------------ reading them


def _stages() -> set[str]:
    """Images that can be built."""
    return set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE))


def _parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a `sightline` command line. Raises a UsageError for one that it would not take."""
    group: Any = get_command(join())
    parameters: dict[str, Any] = group.commands[words[0]].make_context(words[0], list(words[1:])).params
    return parameters


def _mebibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]  # fails here otherwise
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def _selects(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    labels = pod["metadata"]["labels"]
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )
