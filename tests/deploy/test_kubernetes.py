"""The manifests: right by Kubernetes' schemas, whole as kustomize puts them together, and they
agree with the gateway.
"""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

import gateway

from .agreement import (
    ADMIN,
    CONFIG,
    DEPLOY,
    LEAVING_S,
    OCPP,
    STORE,
    VARIABLES,
    configured,
    parsed,
    pinned,
    secrets_in,
    variables,
)

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.33")


def load(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


(KUSTOMIZATION,) = load("kustomization.yaml")
RESOURCES = [one for name in KUSTOMIZATION["resources"] for one in load(name)]
NAMED = {(one["kind"], one["metadata"]["name"]): one for one in RESOURCES}
STATEFUL_SET = NAMED["StatefulSet", "ocpp-gateway"]["spec"]
POD = STATEFUL_SET["template"]["spec"]
(CONTAINER,) = POD["containers"]
UID = 10_001


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("named", NAMED, ids=" ".join)
def test_kubernetes_takes_it(named, version):
    kubernetes_validate.validate(NAMED[named], version, strict=True)


def test_kubernetes_would_not_take_a_key_that_it_does_not_know():
    bad = NAMED["Service", "ocpp-gateway"] | {"spec": {"selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, VERSIONS[0], strict=True)


def test_every_file_is_part_of_it():
    """In the folder there is nothing that is applied by nobody."""
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    (config,) = KUSTOMIZATION["configMapGenerator"]
    assert files == {"kustomization.yaml", *KUSTOMIZATION["resources"], *config["files"]}


def test_a_configuration_and_a_secret_are_made_of_files_for_the_pod():
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    (config,) = KUSTOMIZATION["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == config["name"]
    (secret,) = KUSTOMIZATION["secretGenerator"]
    assert volumes["secret"]["secret"]["secretName"] == secret["name"]
    assert secret["files"] == ["access_token=secrets/access_token"]
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "/deploy/kubernetes/secrets/" in ignored


def test_every_selector_finds_the_pod():
    labels = STATEFUL_SET["template"]["metadata"]["labels"]
    selectors = [one["spec"]["selector"] for one in RESOURCES if "selector" in one.get("spec", {})]
    assert len(selectors) == 4
    for selector in selectors:
        assert selector.get("matchLabels", selector).items() <= labels.items()
    assert ("Service", STATEFUL_SET["serviceName"]) in NAMED
    assert ("Namespace", KUSTOMIZATION["namespace"]) in NAMED


def test_there_is_one_gateway_for_one_store():
    assert STATEFUL_SET["replicas"] == 1
    (claim,) = STATEFUL_SET["volumeClaimTemplates"]
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]]["mountPath"] == STORE
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert set(mounts) == {claim["metadata"]["name"], *(v["name"] for v in POD["volumes"])}


def test_a_node_can_be_drained():
    """With one replica, a budget of none unavailable would hold up every drain for ever."""
    assert NAMED["PodDisruptionBudget", "ocpp-gateway"]["spec"]["maxUnavailable"] == 1


def test_its_image_is_pinned_to_the_version_of_the_gateway():
    assert CONTAINER["image"] == f"ocpp-gateway:{gateway.__version__}"
    (image,) = KUSTOMIZATION["images"]
    assert (image["name"], image["newTag"]) == ("ocpp-gateway", gateway.__version__)
    assert pinned(CONTAINER["image"])


def test_it_runs_the_gateway_with_a_configuration_that_is_right(tmp_path):
    assert parsed(CONTAINER["args"]).config.as_posix() == CONFIG
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert f"{mounts['config']}/gateway.toml" == CONFIG
    environment = {one["name"]: one["value"] for one in CONTAINER["env"]}
    assert environment.keys() <= VARIABLES
    token = environment["OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN_FILE"]
    assert token == f"{mounts['secret']}/access_token"
    (tmp_path / "tariffs.json").write_text((FOLDER / "tariffs.json").read_text())
    (tmp_path / "token").write_text("TOKEN\n")
    environment["OCPP_GATEWAY_THINGSBOARD_ACCESS_TOKEN_FILE"] = str(tmp_path / "token")
    config = configured(FOLDER / "gateway.toml", tmp_path, {}, **environment)
    assert config.thingsboard.access_token == "TOKEN"
    assert (config.admin.listen.host, config.admin.listen.port) == ("0.0.0.0", ADMIN)
    assert config.ocpp.listen.port == OCPP
    assert str(config.storage.url.parent) == STORE


def test_ports_have_one_name_and_one_number():
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"ocpp": OCPP, "admin": ADMIN}
    for name, port in (("ocpp-gateway", "ocpp"), ("ocpp-gateway-admin", "admin")):
        (served,) = NAMED["Service", name]["spec"]["ports"]
        assert (served["name"], served["targetPort"], served["port"]) == (port, port, ports[port])
    annotations = STATEFUL_SET["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ADMIN)


def test_probes_ask_what_the_admin_port_answers():
    """Alive while it turns; ready while it can take and keep what chargers say."""
    probes = {kind: CONTAINER[kind]["httpGet"] for kind in
             ("startupProbe", "livenessProbe", "readinessProbe")}  # fmt: skip
    assert [one["path"] for one in probes.values()] == ["/healthz", "/healthz", "/readyz"]
    assert {one["port"] for one in probes.values()} == {"admin"}


def test_it_is_given_time_to_leave():
    assert POD["terminationGracePeriodSeconds"] > LEAVING_S


def test_it_has_no_rights_but_its_own():
    """The `restricted` profile of Kubernetes' pod security standards, and a read-only root."""
    of_pod, of_container = POD["securityContext"], CONTAINER["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == of_pod["runAsGroup"] == of_pod["fsGroup"] == UID
    assert f"USER {UID}:{UID}" in (DEPLOY / "Dockerfile").read_text()
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    labels = NAMED["Namespace", "ocpp-gateway"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_kubernetes_gives_it_no_variables_that_it_would_take_for_keys():
    """Of a service of its own name: OCPP_GATEWAY_PORT and the like."""
    assert POD["enableServiceLinks"] is False
    for path in FOLDER.iterdir():
        if path.is_file():
            assert variables(path.read_text()) - {"OCPP_GATEWAY_SERVICE_HOST"} <= VARIABLES


def test_no_secret_stands_in_it():
    assert list(secrets_in(RESOURCES)) == list(secrets_in(KUSTOMIZATION)) == []
    assert not [one for one in RESOURCES if one["kind"] == "Secret"]
