"""The cluster files: valid for Ray, closed to the outside, spot first, true in their words."""

import copy
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.providers import _get_default_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
    CloudResourceMonitor,
)
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from physfed_ray.cli import make_parser

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("ray_cluster.yaml", "gcp.yaml", "azure.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def prepared(name: str) -> dict[str, Any]:
    """The configuration as `ray up` completes it."""
    return prepare_config(copy.deepcopy(read(name)))


def environment(config: dict[str, Any]) -> dict[str, str]:
    """What `docker run` puts into the environment of the container."""
    words = shlex.split(" ".join(config["docker"]["run_options"]))
    return dict(value.split("=", 1) for flag, value in pairwise(words) if flag == "-e")


def gpu_types(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    types = config["available_node_types"]
    return {name: kind for name, kind in types.items() if kind["resources"].get("GPU")}


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> dict[str, Any]:
    return prepared(request.param)


def test_that_ray_accepts_the_file(cloud: dict[str, Any]) -> None:
    validate_config(cloud)
    AutoscalingConfig(cloud, skip_content_hash=True).get_node_type_configs()


def test_that_no_default_of_ray_slips_in(cloud: dict[str, Any]) -> None:
    """Ray's defaults would open the dashboard and install another Ray."""
    defaults = _get_default_config(cloud["provider"])
    for key in ("setup_commands", "head_setup_commands", "head_start_ray_commands"):
        assert cloud[key] != defaults[key]
    assert "dashboard-host=0.0.0.0" not in yaml.safe_dump(cloud)


def test_that_every_node_asks_for_the_token(cloud: dict[str, Any]) -> None:
    assert environment(cloud)["RAY_AUTH_MODE"] == "token"
    assert cloud["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_that_jobs_find_their_folders(cloud: dict[str, Any]) -> None:
    variables = environment(cloud)
    assert re.match(r"(s3|gs|az)://\w", variables["PHYSFED_RUNS"])
    assert variables["PHYSFED_CACHE"].startswith("/")
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"


def test_that_ray_is_started_closed(cloud: dict[str, Any]) -> None:
    (head,) = [line for line in cloud["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in cloud["worker_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in shlex.split(head)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in shlex.split(head)
    assert "--address=$RAY_HEAD_IP:6379" in worker


def test_that_gpu_nodes_come_on_demand_and_spot_first(cloud: dict[str, Any]) -> None:
    types = gpu_types(cloud)
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["priority"] > on_demand["priority"]
    assert spot["resources"] == on_demand["resources"]
    assert "spot" in yaml.safe_dump(spot["node_config"]).lower()
    assert "spot" not in yaml.safe_dump(on_demand["node_config"]).lower()
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())
    assert cloud["available_node_types"][cloud["head_node_type"]]["max_workers"] == 0
    assert 0 < cloud["idle_timeout_minutes"] <= 30
    assert cloud["provider"]["cache_stopped_nodes"] is False


def test_that_machines_are_tagged(cloud: dict[str, Any]) -> None:
    for kind in cloud["available_node_types"].values():
        assert re.search(r"project: physfed|Value: physfed", yaml.safe_dump(kind["node_config"]))


def test_that_nodes_install_the_lock_and_the_project(cloud: dict[str, Any]) -> None:
    for setup in (cloud["head_setup_commands"], cloud["worker_setup_commands"]):
        installs = [line for line in setup if "pip install" in line]
        assert installs[0].endswith("--requirement ~/physfed/requirements.lock")
        (project,) = [line for line in installs if "--no-deps" in line]
        for line in installs:  # nothing else may move a version of the lock
            assert (
                line in (installs[0], project) or "--constraint ~/physfed/requirements.lock" in line
            )
    mounts = cloud["file_mounts"]
    files = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE")
    for name in ("physfed_ray", "experiments", *files):
        assert mounts[f"~/physfed/{name}"] == name
        assert (ROOT / name).exists()


def test_that_images_have_the_ray_of_the_lock(cloud: dict[str, Any]) -> None:
    for image in (cloud["docker"]["image"], cloud["docker"]["head_image"]):
        assert f":{ray.__version__}-py311-" in image
    assert f"\nray=={ray.__version__}\n" in (ROOT / "requirements.lock").read_text()


def test_that_the_link_at_the_top_is_the_aws_file() -> None:
    link = ROOT / "ray_cluster.yaml"
    assert link.is_symlink()
    assert link.resolve() == CLUSTER / "ray_cluster.yaml"
    assert yaml.safe_load(link.read_text())["provider"]["type"] == "aws"


def test_that_no_file_holds_a_secret() -> None:
    secret = re.compile(
        r"\b[0-9a-f]{64}\b|AKIA[0-9A-Z]{16}|PRIVATE KEY|RAY_AUTH_TOKEN=(?!\$)\w|AccountKey="
    )
    files = [path for path in CLUSTER.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        assert not secret.search(path.read_text()), path


# Google Cloud and Azure: what can be held against Ray's source without their packages.


def test_that_gcp_nodes_are_in_the_closed_network_and_may_write_results() -> None:
    types = read("gcp.yaml")["available_node_types"]
    for kind in types.values():
        (interface,) = kind["node_config"]["networkInterfaces"]
        assert interface["subnetwork"].endswith("/subnetworks/physfed")
    for kind in gpu_types(read("gcp.yaml")).values():
        (account,) = kind["node_config"]["serviceAccounts"]
        assert account["email"].startswith("physfed-worker@")
        assert kind["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    opened = re.findall(r"--allow[= ](\S+)(.*)", (CLUSTER / "README.md").read_text())
    assert sorted(rule for rule, _ in opened) == ["all", "tcp:22"]
    assert all("--source-ranges" in rest for _, rest in opened)


def test_that_azure_machines_use_parameters_of_rays_template() -> None:
    folder = Path(ray.__file__).parent / "autoscaler/_private/_azure"
    template = yaml.safe_load((folder / "azure-vm-template.json").read_text().replace("\t", " "))
    for kind in read("azure.yaml")["available_node_types"].values():
        unknown = set(kind["node_config"]["azure_arm_parameters"]) - set(template["parameters"])
        assert not unknown
    network = yaml.safe_load((folder / "azure-config-template.json").read_text())
    kind = "Microsoft.Network/networkSecurityGroups"
    (group,) = [item for item in network["resources"] if item["type"] == kind]
    (rule,) = group["properties"]["securityRules"]
    assert rule["properties"]["destinationPortRange"] == "22"


def test_that_the_azure_head_installs_what_ray_works_with() -> None:
    defaults = _get_default_config({"type": "azure"})
    wanted = re.findall(r"\S+==\S+", " ".join(defaults["head_setup_commands"]))
    assert wanted
    installed = " ".join(read("azure.yaml")["head_setup_commands"]).split()
    assert set(wanted) <= set(installed)


# What the comments of ray_cluster.yaml say of Ray's autoscaler.


def launches(config: dict[str, Any], monitor: CloudResourceMonitor, hosts: int) -> dict[str, int]:
    """Nodes that Ray would launch for hosts that wait for a whole GPU each, on an idle cluster."""
    parsed = AutoscalingConfig(config, skip_content_hash=True)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=parsed.get_node_type_configs(),
            max_num_nodes=parsed.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make({"CPU": 1, "GPU": 1}) for _ in range(hosts)]
            ),
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    return {
        item.instance_type: item.count for item in reply.to_launch if item.instance_type != "head"
    }


def fail(status: "Instance.InstanceStatus.ValueType") -> CloudResourceMonitor:
    monitor = CloudResourceMonitor()
    monitor.notify([InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=status)])
    return monitor


def test_that_spot_comes_first_and_on_demand_beyond_its_maximum(cloud: dict[str, Any]) -> None:
    assert launches(cloud, CloudResourceMonitor(), 3) == {"gpu_spot": 3}
    cloud["available_node_types"]["gpu_spot"]["max_workers"] = 2
    assert launches(cloud, CloudResourceMonitor(), 3) == {"gpu_spot": 2, "gpu_on_demand": 1}


def test_that_a_refused_spot_launch_is_not_replaced_until_spot_is_set_to_0(
    cloud: dict[str, Any],
) -> None:
    """Should this fail, Ray has learnt it: then the comments of the cluster files must change."""
    refused = fail(Instance.ALLOCATION_FAILED)
    assert launches(cloud, refused, 3) == {"gpu_spot": 3}
    cloud["available_node_types"]["gpu_spot"]["max_workers"] = 0
    assert launches(cloud, refused, 3) == {"gpu_on_demand": 3}


def test_that_spot_nodes_which_never_come_up_are_replaced(cloud: dict[str, Any]) -> None:
    assert launches(cloud, fail(Instance.ALLOCATION_TIMEOUT), 3) == {"gpu_on_demand": 3}


# Kubernetes and Docker.


def kuberay(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Ray object of a file, and the description of its cluster."""
    objects = list(yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text()))
    (found,) = [item for item in objects if item["apiVersion"] == "ray.io/v1"]
    return found, found["spec"].get("rayClusterSpec", found["spec"])


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_that_kubernetes_runs_it_with_token_autoscaler_and_without_root(name: str) -> None:
    _, spec = kuberay(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["rayVersion"] == ray.__version__
    (gpu,) = spec["workerGroupSpecs"]
    assert gpu["replicas"] == gpu["minReplicas"] == 0 < gpu["maxReplicas"]
    for group in (spec["headGroupSpec"], gpu):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        variables = {item["name"]: item["value"] for item in container["env"]}
        mounted = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
        volumes = {item["name"]: item for item in pod["volumes"]}
        assert "persistentVolumeClaim" in volumes[mounted[variables["PHYSFED_RUNS"]]]
        assert variables["PHYSFED_CACHE"] in mounted
        resources = container["resources"]
        assert (resources["limits"].get("nvidia.com/gpu") == "1") is (group is gpu)
        assert resources["limits"] == resources["requests"]


def test_that_both_kubernetes_files_describe_the_same_cluster() -> None:
    assert kuberay("raycluster.yaml")[1] == kuberay("rayjob.yaml")[1]


def test_that_the_ray_job_calls_physfed_as_it_is() -> None:
    program, *arguments = shlex.split(kuberay("rayjob.yaml")[0]["spec"]["entrypoint"])
    assert program == "physfed"
    options = make_parser().parse_args(arguments)
    assert options.resume
    assert options.address == "auto"
    home = Path("/home/ray")  # where cluster/Dockerfile puts the experiments
    assert (ROOT / options.experiment.relative_to(home)).exists()


def test_that_commands_of_the_readme_exist() -> None:
    lines = re.sub(r"\\\n\s*", "", (CLUSTER / "README.md").read_text()).splitlines()
    called = [line.strip() for line in lines if line.strip().startswith("physfed ")]
    assert len(called) >= 4
    for line in called:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_that_the_image_is_built_from_the_lock_without_root() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    users = [words[1] for words in steps if words[0] == "USER"]
    assert users == ["ray"]
    assert any("--requirement build/requirements.lock" in words[1] for words in steps)
    variables = " ".join(words[1] for words in steps if words[0] == "ENV")
    assert "RAY_AUTH_MODE=token" in variables
    assert "HOME=/home/ray" in variables  # `ray up` reads it there
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    sources = {source for words in steps if words[0] == "COPY" for source in words[1].split()[1:-1]}
    assert "*" in allowed
    assert {f"!{source}" for source in sources} == {line for line in allowed if line[:1] == "!"}
