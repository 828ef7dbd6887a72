"""The AWS files: Ray's own launcher runs `ray_cluster.yaml` against moto's EC2 and IAM."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What Ray's bootstrap makes of the AWS file, in an account with the stack's profiles."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray keeps a key pair there
        iam = boto3.client("iam")
        for name in ("physfed-head", "physfed-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield _bootstrap_config(
            yaml.safe_load((CLUSTER / "ray_cluster.yaml").read_text()), no_config_cache=True
        )


def test_that_only_ssh_is_open_on_aws(aws: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2", region_name=aws["provider"]["region"])
    groups = {
        group
        for kind in aws["available_node_types"].values()
        for group in kind["node_config"]["SecurityGroupIds"]
    }
    (group,) = ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    assert group["GroupName"] == "physfed"
    for rule in group["IpPermissions"]:
        if rule.get("IpRanges"):
            assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
        else:
            assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]


@pytest.mark.parametrize(
    ("kind", "spot"), [("head", False), ("gpu_spot", True), ("gpu_on_demand", False)]
)
def test_that_ray_launches_each_kind_of_node_on_aws(
    aws: dict[str, Any], kind: str, spot: bool
) -> None:
    provider = _get_node_provider(aws["provider"], aws["cluster_name"], use_cache=False)
    node_config = copy.deepcopy(aws["available_node_types"][kind]["node_config"])
    node_config["ImageId"] = "ami-12c6146b"  # moto has no public parameters to look up
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
    (created,) = provider.create_node(node_config, tags, 1)
    ec2 = boto3.client("ec2", region_name=aws["provider"]["region"])
    (found,) = ec2.describe_instances(InstanceIds=[created])["Reservations"][0]["Instances"]
    assert found["InstanceType"] == node_config["InstanceType"]
    assert (found.get("InstanceLifecycle") == "spot") is spot
    tagged = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert tagged["project"] == "physfed"
    assert tagged["ray-cluster-name"] == "physfed"  # the head's policy ends only nodes with it


class CloudFormation(yaml.SafeLoader):
    """YAML with CloudFormation's short functions."""


CloudFormation.add_multi_constructor("!", lambda loader, name, node: f"{name} {node.value}")


def test_that_the_aws_stack_matches_the_cluster() -> None:
    stack = yaml.load((CLUSTER / "aws/stack.yaml").read_text(), CloudFormation)
    resources = stack["Resources"]
    config = yaml.safe_load((CLUSTER / "ray_cluster.yaml").read_text())
    group = resources["Nodes"]["Properties"]
    assert group["GroupName"] == config["provider"]["security_group"]["GroupName"]
    (ssh,) = group["SecurityGroupIngress"]
    assert (ssh["FromPort"], ssh["ToPort"], ssh["CidrIp"]) == (22, 22, "Ref SshFrom")
    assert "CidrIp" not in resources["BetweenNodes"]["Properties"]
    profiles = {
        item["Properties"]["InstanceProfileName"]
        for item in resources.values()
        if item["Type"] == "AWS::IAM::InstanceProfile"
    }
    used = config["available_node_types"].values()
    assert profiles == {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in used}
    assert all(resources["Runs"]["Properties"]["PublicAccessBlockConfiguration"].values())
    assert resources["Runs"]["DeletionPolicy"] == "Retain"
