"""compose.yaml: its schema, that nothing runs as root or is open to others, how its parts agree."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gnn_core.config import parse_config
from gnn_core.deploy.programs import read_command

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROFILES = ("tensorboard", "prometheus", "grafana", "mlflow")
EVERY_SERVICE = pytest.mark.parametrize("name", SERVICES)


def filled(text: str, **given: str) -> str:
    """A text with its variables, or what stands for them where they are not given."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)


def words_of(name: str, **given: str) -> list[str]:
    """The words of a service's command; of the launcher those that its shell starts."""
    if name != "launcher":
        return [filled(word, **given) for word in SERVICES[name]["command"]]
    *shell, script = SERVICES[name]["command"]
    assert shell == ["sh", "-fc"]
    own = {key: filled(text, **given) for key, text in SERVICES[name]["environment"].items()}
    line = re.sub(r"\$\$(\w+)", lambda found: own[found[1]], script.removeprefix("exec "))
    return shlex.split(line)


def mounts(name: str) -> list[list[str]]:
    return [one.split(":") for one in SERVICES[name].get("volumes", ())]


def test_the_schema_of_compose_accepts_it() -> None:
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("the schema comes with check-jsonschema: pip install check-jsonschema")
    vendored = Path(package.origin).parent / "builtin_schemas" / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text("utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    # Compose puts values in place of variables before it looks.
    compose = yaml.safe_load(filled((ROOT / "compose.yaml").read_text("utf-8")))
    assert [error.message for error in validator.iter_errors(compose)] == []
    wrong = {**compose, "services": {"launcher": {**SERVICES["launcher"], "profile": "x"}}}
    assert list(validator.iter_errors(wrong))


def test_a_launcher_and_two_workers_start_and_the_others_are_profiles() -> None:
    profiles = {name: one.get("profiles") for name, one in SERVICES.items()}
    started = {name for name, own in profiles.items() if own is None}
    assert started == {"keys", "graph", "launcher", "worker-1", "worker-2"}
    assert {n: own for n, own in profiles.items() if own} == {name: [name] for name in PROFILES}


@EVERY_SERVICE
def test_nothing_runs_as_root_or_can_become_it(name: str) -> None:
    one = SERVICES[name]
    assert one["user"].split(":")[0] not in ("", "0", "root")
    assert one["read_only"] is True and one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert not one.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"}


@EVERY_SERVICE
def test_ports_are_of_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))
    assert bool(SERVICES[name].get("ports")) == (name in PROFILES)


@EVERY_SERVICE
def test_images_have_a_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    image = filled(SERVICES[name]["image"])
    if image.startswith("ringsage"):
        assert image in (f"ringsage:{version}", f"ringsage-tensorboard:{version}")
        assert filled(SERVICES[name]["pull_policy"]) == "never"
    else:
        assert re.fullmatch(r"[a-z.]+/[a-z/]+:v?\d+\.\d+\.\d+", image)


def test_volumes_are_declared_and_files_are_there_and_read_only() -> None:
    named = {own[0] for name in SERVICES for own in mounts(name) if not own[0].startswith(".")}
    assert named == set(COMPOSE["volumes"])
    files = [own for name in SERVICES for own in mounts(name) if own[0].startswith(".")]
    assert files and all((ROOT / own[0]).is_file() and own[2:] == ["ro"] for own in files)
    # Who has the keys may start programs on the workers.
    holders = {name for name in SERVICES if any(own[0] == "keys" for own in mounts(name))}
    assert holders == {"keys", "launcher", "worker-1", "worker-2"}


def test_there_is_no_secret_in_it() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    names = [name for one in SERVICES.values() for name in one.get("environment", {})]
    assert not [name for name in names if re.search("PASS|SECRET|TOKEN|KEY", name, re.I)]
    assert "PRIVATE KEY" not in text and not re.search(r"//[^/\s]+:[^/\s]+@", text)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen not found")
def test_keys_are_made_once(tmp_path: Path) -> None:
    made = []
    (tmp_path / "id_rsa").write_text("half a key")  # a start that was killed
    for _ in range(2):
        subprocess.run(words_of("keys"), cwd=tmp_path, check=True, timeout=60)
        made.append({file.name: file.read_bytes() for file in tmp_path.iterdir()})
    assert made[0] == made[1] and set(made[0]) == {"id_rsa", "id_rsa.pub", "authorized_keys"}
    assert made[0]["authorized_keys"] == made[0]["id_rsa.pub"]
    assert (tmp_path / "id_rsa").stat().st_mode & 0o77 == 0


def test_the_launcher_starts_a_trainer_that_takes_its_flags() -> None:
    words = words_of("launcher", FLAGS="--epochs=3 --lr=1e-3", DATASET="cora")
    command = read_command({"command": words})
    assert not command.problems and command.program == "horovod_gnn/train.py"
    config = parse_config(command.flags, "horovod")
    assert (config.dataset, config.epochs) == ("cora", 3)
    prepared = words_of("graph", DATASET="cora")
    assert prepared[-2:] == ["cora", f"--cache-dir={config.cache_dir}"]
    hosts = dict(one.split(":") for one in command.options["-H"].split(","))
    workers = [name for name in SERVICES if name.startswith("worker")]
    assert list(hosts) == workers == [SERVICES[name]["hostname"] for name in workers]
    assert set(workers) < set(SERVICES["launcher"]["depends_on"])
    assert config.metrics_port is not None
    served = {
        f"{host}:{config.metrics_port + place}"
        for host, slots in hosts.items()
        for place in range(int(slots))
    }
    file = ROOT / "mpi-operator" / "monitoring" / "compose" / "prometheus.yaml"
    (job,) = yaml.safe_load(file.read_text("utf-8"))["scrape_configs"]
    assert {one for group in job["static_configs"] for one in group["targets"]} == served


def test_what_runs_is_what_the_image_has() -> None:
    dockerfile = (ROOT / "mpi-operator" / "Dockerfile").read_text("utf-8")
    command = json.loads(dockerfile.rpartition("\nCMD ")[2])
    assert words_of("worker-1") == words_of("worker-2") == command
    made = re.search(r"install -d -m 700 -o mpiuser -g mpiuser (.+)$", dockerfile, re.M)
    assert made is not None
    folders = {own[1] for own in mounts("launcher")}
    assert set(made[1].split()) == folders == {"/home/mpiuser/.ssh", "/shared"}


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    folder = ROOT / "mpi-operator" / "monitoring" / "compose"
    (source,) = yaml.safe_load((folder / "datasource.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards.yaml").read_text("utf-8"))["providers"]
    targets = {own[0]: own[1] for own in mounts("grafana")}
    dashboard = targets["./mpi-operator/monitoring/dashboard.json"]
    assert str(Path(dashboard).parent) == provider["options"]["path"]
