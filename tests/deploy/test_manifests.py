"""Every manifest of deploy/ against its own schema, and against each other: what one names, another has."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from glioflow import cluster
from glioflow.cluster.autoscaled import AUTOSCALED_NODES, nodes_to_come

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kuberay" / "base"
OVERLAYS = DEPLOY / "kuberay" / "overlays"
SCHEMAS = ROOT.parent / "shared" / "schemas"


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def kubernetes() -> list[Any]:
    """Return (file, document) of everything that Kubernetes takes."""
    return [
        pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
        for path in sorted((DEPLOY / "kuberay").rglob("*.yaml"))
        for document in documents(path)
        if "kind" in document and "metadata" in document
    ]


@pytest.mark.parametrize("document", [each for each in kubernetes() if each.values[0]["apiVersion"] != "ray.io/v1"])
def test_kubernetes_takes_every_manifest(document):
    import kubernetes_validate

    kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's schemas are in the developers' shared folder")
@pytest.mark.parametrize("document", [each for each in kubernetes() if each.values[0]["apiVersion"] == "ray.io/v1"])
def test_kuberay_takes_its_kinds_and_knows_every_key(document):
    import jsonschema

    schema = json.loads((SCHEMAS / f"kuberay-v1-{document['kind']}.json").read_text())
    jsonschema.validate(document, schema)
    assert not list(unknown_keys(document["spec"], schema["properties"]["spec"], "spec"))


def unknown_keys(value: Any, schema: dict[str, Any], where: str) -> Any:
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from unknown_keys(each, schema.get("items", {}), f"{where}[{number}]")
    known = schema.get("properties")
    if isinstance(value, dict) and known:
        for key, each in value.items():
            if key not in known:
                yield f"{where}.{key}"
            else:
                yield from unknown_keys(each, known[key], f"{where}.{key}")


def test_ray_up_takes_the_cluster_file():
    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text()), schema)


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).parent / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, cwd=ROOT)


def test_compose_takes_its_file():
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_is_clean():
    done = tool("hadolint", "deploy/Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_image_gets_every_file_it_copies():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == each or source.startswith(f"{each}/") for each in allowed), source


def test_the_image_tells_ray_what_a_cluster_of_our_own_is_told():
    reported = dict(re.findall(r"\b(RAY_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    assert len(reported) >= 3
    assert reported.items() <= cluster.DEFAULTS.items()


def test_serves_proxy_understands_that_it_is_to_use_grpc():
    asked = "from ray.serve._private import constants; assert constants.RAY_SERVE_PROXY_USE_GRPC"
    subprocess.run([sys.executable, "-c", asked], env={**os.environ, **cluster.DEFAULTS}, check=True)


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_names_only_secrets_volumes_and_services_that_exist(name):
    service = COMPOSE["services"][name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source.startswith((".", "$")) or source in COMPOSE["volumes"], volume
    for key, value in service.get("environment", {}).items():
        if key.endswith(("_FILE", "_PATH")) and str(value).startswith("/run/secrets/"):
            assert Path(value).name in service["secrets"], key


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_only_loopback_is_published_and_no_password_is_written_down(name):
    service = COMPOSE["services"][name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET", key) and not key.endswith("_FILE"):
            assert str(value).startswith("/run/secrets/"), key


def test_every_secret_that_is_named_is_made(tmp_path):
    subprocess.run([DEPLOY / "make-secrets.sh", tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(COMPOSE["secrets"]) <= set(made)
    assert all(len(value) == 64 for value in made.values())
    assert len(set(made.values())) == len(made)
    subprocess.run([DEPLOY / "make-secrets.sh", tmp_path], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made, "an existing secret stays"
    for generator in yaml.safe_load((BASE / "kustomization.yaml").read_text())["secretGenerator"]:
        for file in generator["files"]:
            assert Path(file.split("=")[-1]).name in made


def test_kustomize_lists_every_manifest_and_patches_what_exists():
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    names = {(document["kind"], document["metadata"]["name"]) for file in listed for document in documents(BASE / file)}
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml", "ray-references.yaml"}
    assert set(listed) == files
    for overlay in OVERLAYS.glob("*/kustomization.yaml"):
        for patch in yaml.safe_load(overlay.read_text())["patches"]:
            target = patch["target"]
            meant = [
                document
                for file in listed
                for document in documents(BASE / file)
                if document["kind"] == target["kind"] and target.get("name") in (None, document["metadata"]["name"])
            ]
            assert meant, (target, names)
            for change in yaml.safe_load(patch["patch"]):
                for document in meant:
                    *path, last = [part.replace("~1", "/") for part in change["path"].split("/")[1:]]
                    node: Any = document
                    for part in path:
                        node = node[int(part) if isinstance(node, list) else part]
                    assert change["op"] == "add" or last in node, change


def test_every_part_finds_the_claims_config_and_secrets_it_names():
    known = {"claimName": set(), "secretName": set(), "configMapRef": set()}
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    known["secretName"] = {each["name"] for each in kustomization["secretGenerator"]}
    known["configMapRef"] = {each["name"] for each in kustomization["configMapGenerator"]}
    for document in documents(BASE / "storage.yaml"):
        known["claimName"].add(document["metadata"]["name"])
    for each in kubernetes():
        for key, value in walk(each.values[0]):
            if key in known:
                assert (value["name"] if isinstance(value, dict) else value) in known[key], (each.id, key, value)


def walk(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def test_the_serve_configuration_is_what_serve_build_gives(tmp_path):
    from ray.serve.schema import ServeDeploySchema

    written = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    ServeDeploySchema.model_validate(written)
    done = tool("serve", "build", "glioflow.serving.gateway:app", "-o", str(tmp_path / "built.yaml"))
    assert done.returncode == 0, done.stderr
    built = yaml.safe_load((tmp_path / "built.yaml").read_text())
    built["applications"][0]["name"] = "glioflow"
    assert written["applications"] == built["applications"]
    assert written["http_options"]["host"] == "127.0.0.1"
    service = documents(BASE / "rayservice.yaml")[0]
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    served["http_options"]["host"] = "127.0.0.1"
    assert served == written


def test_the_dashboard_asks_for_metrics_that_the_endpoint_gives():
    from glioflow.serving.http.metrics import Metrics

    given = {f"glioflow_{family.name.removeprefix('glioflow_')}" for family in Metrics("g").registry.collect()}
    dashboard = json.loads((DEPLOY / "grafana" / "glioflow.json").read_text())
    asked = {
        re.sub("_(bucket|total)$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"glioflow_\w+", target["expr"])
    }
    assert asked
    assert asked <= given


def pods(value: Any) -> Any:
    """Give the specification of every pod in a document."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


def gib(amount: str) -> float:
    assert amount.endswith("Gi"), amount
    return float(amount.removesuffix("Gi"))


@pytest.mark.parametrize("document", kubernetes())
def test_a_ray_pods_shared_memory_holds_its_object_store(document):
    for pod in pods(document):
        for volume in pod.get("volumes", []):
            if volume["name"] == "shm":
                (container,) = pod["containers"]
                store = 0.3 * gib(container["resources"]["limits"]["memory"])  # Ray's own share
                assert gib(volume["emptyDir"]["sizeLimit"]) >= store


@pytest.mark.parametrize("document", kubernetes())
def test_a_large_volume_is_not_gone_through_at_every_start(document):
    for pod in pods(document):
        if "fsGroup" in pod["securityContext"]:
            assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def groups() -> dict[str, Any]:
    (cluster_,) = documents(BASE / "raycluster.yaml")
    return {group["groupName"]: group for group in cluster_["spec"]["workerGroupSpecs"]}


def test_gpu_groups_go_to_gpu_nodes_and_one_has_eight():
    sizes = {}
    for name, group in groups().items():
        pod = group["template"]["spec"]
        gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert bool(gpus) == bool(pod.get("nodeSelector")) == bool(pod.get("tolerations")), name
        sizes[name] = int(gpus or 0)
    assert sizes == {"cpu": 0, "gpu": 1, "gpu8": 8}


@pytest.mark.parametrize("overlay", [None, "small", "gpu"])
def test_the_head_knows_which_nodes_the_autoscaler_may_add(overlay, monkeypatch):
    (document,) = documents(BASE / "raycluster.yaml")
    patches = (
        [] if overlay is None else yaml.safe_load((OVERLAYS / overlay / "kustomization.yaml").read_text())["patches"]
    )
    for patch in patches:
        for change in yaml.safe_load(patch["patch"]) if patch["target"]["kind"] == "RayCluster" else []:
            *path, last = change["path"].split("/")[1:]
            inside: Any = document
            for part in path:
                inside = inside[int(part) if isinstance(inside, list) else part]
            inside[last] = change["value"]
    listed = {
        each["name"]: each["value"]
        for each in document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    monkeypatch.setenv(AUTOSCALED_NODES, listed[AUTOSCALED_NODES])
    grown = []
    for group in document["spec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        grown += [{"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}] * group["maxReplicas"]
    assert nodes_to_come([]) == grown


def test_every_ray_pod_says_where_prometheus_finds_its_metrics():
    (cluster_,) = documents(BASE / "raycluster.yaml")
    (service,) = documents(BASE / "rayservice.yaml")
    for spec in (cluster_["spec"], service["spec"]["rayClusterConfig"]):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            annotations = group["template"]["metadata"]["annotations"]
            (container,) = group["template"]["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(ports["metrics"])}
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    names = [name for job in scraped for each in job.get("dns_sd_configs", []) for name in each["names"]]
    assert names == ["ray-head", "ray-worker"], "every worker, however many there are"
    assert set(names) <= set(COMPOSE["services"])


def test_the_operator_reaches_ray_however_it_was_installed():
    (policy,) = [each for each in documents(BASE / "networkpolicy.yaml") if each["metadata"]["name"] == "operator"]
    labels = [peer["podSelector"]["matchLabels"] for peer in policy["spec"]["ingress"][0]["from"]]
    assert {"app.kubernetes.io/name": "kuberay-operator"} in labels, "as Helm labels it"
    assert {"app.kubernetes.io/component": "kuberay-operator"} in labels, "as kustomize labels it"


def test_a_stopped_job_has_the_time_to_close_its_runs():
    wait = "RAY_JOB_STOP_WAIT_TIME_S"
    (config,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    assert f"{wait}=120" in config["literals"]
    assert COMPOSE["services"]["ray-head"]["environment"][wait] == "120"
    assert f"--env={wait}=120" in (DEPLOY / "ray-cluster.yaml").read_text()


def test_the_image_has_what_kuberays_probes_call():
    assert re.search(r"apt-get install [^&]*\bwget\b", (DEPLOY / "Dockerfile").read_text())


def test_an_edit_of_the_readme_installs_no_package_anew():
    before = (DEPLOY / "Dockerfile").read_text().partition("RUN deploy/install.sh")[0]
    copied = [word for line in before.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied == ["requirements.lock", "deploy/install.sh"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_images_install_makes_a_working_environment(tmp_path):
    """The image's build steps in a clean virtual environment, as far as no container engine is needed."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    python = tmp_path / "clean" / "bin" / "python"
    uv = Path(sys.executable).parents[1] / "uv" / "bin" / "uv"
    if not uv.is_file():
        pytest.skip("uv of `make setup` is not there")
    environment = {**os.environ, "UV": str(uv), "UV_FLAGS": f"--quiet --python {python}", "VIRTUAL_ENV": ""}
    subprocess.run([DEPLOY / "install.sh"], check=True, env=environment)
    step = f"{uv} pip install --quiet --python {python} --no-deps --no-build-isolation --editable {ROOT}"
    subprocess.run(step.split(), check=True)
    done = subprocess.run([tmp_path / "clean/bin/glioflow", "--help"], capture_output=True, text=True, check=True)
    assert "not for clinical use" in " ".join(done.stdout.split())
