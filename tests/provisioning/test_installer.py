"""`thingsboard install`, `check` and `uninstall` against a ThingsBoard in memory."""

from __future__ import annotations

import copy
import json
import re
import stat
from pathlib import Path

import httpx2
import pytest
import tb_ce_client

from gateway.provisioning import installer, rule_chain
from gateway.provisioning.dashboards import dashboards
from gateway.provisioning.device_profiles import profile
from gateway.provisioning.errors import ThingsboardError
from gateway.provisioning.installer import Options, check, install, uninstall
from gateway.provisioning.login import Login
from gateway.provisioning.rest import open_rest
from gateway.provisioning.token_file import TokenFile
from gateway.provisioning.viewer import read_only

from .dashboard_linter import lint
from .fake_rest_api import API_KEY, PASSWORD, USER, FakeRestApi

VERSIONS = ("3.9", "4.2.0", "4.2.1.1", "4.3.1", "4.4.0")
PROFILES = ["EV charger", "EV connector", "EV session log"]
ACTIONS = {
    "rowClick": [{"type": "openDashboardState"}],
    "actionCellButton": [{"type": "custom", "customFunction": "..."}],
}
TWO_DASHBOARDS = [
    {
        "title": title,
        "configuration": {
            "widgets": {
                "w1": {"type": "latest", "config": {"title": "Fleet", "actions": ACTIONS}},
                "w2": {"type": "rpc", "config": {"title": "Switch"}},
                "w3": {"type": "alarm", "config": {"settings": {"allowClear": True}}},
            },
            "states": {
                "default": {"layouts": {"main": {"widgets": {"w1": {}, "w2": {}, "w3": {}}}}}
            },
            "timewindow": {"realtime": {"timewindowMs": 60000}},
        },
    }
    for title in ("EV charging", "EV sessions")
]


@pytest.fixture(autouse=True)
def two_dashboards(monkeypatch):
    """What the installer does with dashboards, whatever they show."""
    monkeypatch.setattr(installer, "dashboards", lambda: copy.deepcopy(TWO_DASHBOARDS))


@pytest.fixture(params=VERSIONS)
def thingsboard(request):
    return FakeRestApi(version=request.param)


def run(action, thingsboard, options=None, login=None, handle=None):
    transport = httpx2.MockTransport(handle or thingsboard.handle)
    login = login or Login(USER, PASSWORD)
    with open_rest("http://thingsboard:8080", login, transport=transport) as rest:
        return list(action(rest, options or Options()))


def outcomes(steps):
    return {step.what: step.outcome for step in steps}


def test_an_empty_thingsboard_gets_everything(thingsboard):
    steps = run(install, thingsboard)
    assert {step.outcome for step in steps} == {"note", "created"}
    assert thingsboard.names("DEVICE_PROFILE") == PROFILES
    assert thingsboard.names("RULE_CHAIN") == ["OCPP gateway"]
    assert thingsboard.names("DASHBOARD") == ["EV charging", "EV sessions"]
    gateway = thingsboard.one("DEVICE", "ocpp-gateway")
    assert gateway["additionalInfo"]["gateway"] is True
    chain = thingsboard.one("RULE_CHAIN", "OCPP gateway")
    for name in PROFILES:
        assert thingsboard.one("DEVICE_PROFILE", name)["defaultRuleChainId"] == chain["id"]


def test_a_second_time_nothing_is_changed(thingsboard):
    run(install, thingsboard, Options(viewer=True))
    before = thingsboard.everything()
    thingsboard.writes.clear()
    steps = run(install, thingsboard, Options(viewer=True))
    assert thingsboard.writes == []
    assert thingsboard.everything() == before
    assert {step.outcome for step in steps} == {"note", "already there"}


def test_what_is_installed_passes_the_check_and_an_empty_thingsboard_does_not(thingsboard):
    missing = run(check, thingsboard)
    assert [step.outcome for step in missing if step.is_fault] == ["missing"] * 7
    run(install, thingsboard)
    assert not any(step.is_fault for step in run(check, thingsboard))
    assert len(thingsboard.writes) == 8  # of the installation; a check writes nothing


@pytest.mark.parametrize("thingsboard", ["3.9", "4.4.0"], indirect=True)
@pytest.mark.parametrize("written", range(8))
def test_an_installation_that_was_cut_off_is_completed_by_the_next(thingsboard, written):
    thingsboard.alive = written
    with pytest.raises(ThingsboardError, match="the connection broke off"):
        run(install, thingsboard)
    thingsboard.alive = None
    run(install, thingsboard)
    assert not any(step.is_fault for step in run(check, thingsboard))
    assert thingsboard.names("RULE_CHAIN") == ["OCPP gateway"]
    assert len(thingsboard.entities["DASHBOARD"]) == 2


def change_profile(thingsboard):
    thingsboard.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] = None


def change_severity(thingsboard):
    node_of(thingsboard, "Raise Faulted")["configuration"]["severity"] = "MINOR"


def lose_node(thingsboard):
    (there,) = thingsboard.metadata.values()
    gone = node_of(thingsboard, "Raise Faulted")
    there["nodes"].remove(gone)
    there["connections"] = [one for one in there["connections"] if gone["id"]["id"] not in one]


def cut_connection(thingsboard):
    (there,) = thingsboard.metadata.values()
    there["connections"].pop()


def begin_elsewhere(thingsboard):
    (there,) = thingsboard.metadata.values()
    there["first"] = node_of(thingsboard, "RPC to device")["id"]["id"]


def change_dashboard(thingsboard):
    thingsboard.one("DASHBOARD", "EV charging")["configuration"]["widgets"]["w1"]["type"] = "static"


def take_flag(thingsboard):
    thingsboard.one("DEVICE", "ocpp-gateway")["additionalInfo"]["gateway"] = False


def node_of(thingsboard, name):
    (there,) = thingsboard.metadata.values()
    (node,) = [node for node in there["nodes"] if node["name"] == name]
    return node


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (change_profile, "device profile 'EV charger'"),
        (change_severity, "nodes of 'OCPP gateway'"),
        (lose_node, "nodes of 'OCPP gateway'"),
        (cut_connection, "nodes of 'OCPP gateway'"),
        (begin_elsewhere, "nodes of 'OCPP gateway'"),
        (change_dashboard, "dashboard 'EV charging'"),
        (take_flag, "gateway device 'ocpp-gateway'"),
    ],
)
def test_what_was_changed_is_reported_by_the_check_and_repaired(thingsboard, harm, what):
    run(install, thingsboard)
    harm(thingsboard)
    assert [step.what for step in run(check, thingsboard) if step.is_fault] == [what]
    assert {step.what for step in run(install, thingsboard) if step.outcome == "updated"} == {what}
    assert not any(step.is_fault for step in run(check, thingsboard))


def test_a_profile_that_the_gateway_made_by_connecting_is_taken_over(thingsboard):
    """ThingsBoard creates a profile of the type's name when a device of it connects."""
    thingsboard.add(
        "/api/deviceProfile",
        {"name": "EV charger", "type": "DEFAULT", "transportType": "DEFAULT",
         "profileData": {"configuration": {"type": "DEFAULT"}}},
    )  # fmt: skip
    assert outcomes(run(install, thingsboard))["device profile 'EV charger'"] == "updated"
    chain = thingsboard.one("RULE_CHAIN", "OCPP gateway")
    assert thingsboard.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] == chain["id"]


def test_what_operators_added_stays(thingsboard):
    run(install, thingsboard)
    (there,) = thingsboard.metadata.values()
    mail = {
        "id": {"entityType": "RULE_NODE", "id": "0" * 8 + "-0000-0000-0000-" + "0" * 12},
        "name": "Tell the night shift",
        "type": "org.thingsboard.rule.engine.action.TbLogNode",
        "configuration": {"scriptLang": "JS", "jsScript": "return '';", "tbelScript": ""},
        "configurationVersion": 0,
    }
    there["nodes"].append(mail)
    raised = node_of(thingsboard, "Raise Faulted")
    there["connections"].append((raised["id"]["id"], "Created", mail["id"]["id"]))
    thingsboard.one("DEVICE_PROFILE", "EV charger")["image"] = "data:image/png;base64,"
    widgets = thingsboard.one("DASHBOARD", "EV charging")["configuration"]["widgets"]
    widgets["theirs"] = {"type": "static"}
    assert not any(step.is_fault for step in run(check, thingsboard))

    change_severity(thingsboard)
    change_profile(thingsboard)
    change_dashboard(thingsboard)
    ids = {node["name"]: node["id"] for node in there["nodes"]}
    run(install, thingsboard)

    (there,) = thingsboard.metadata.values()
    assert {node["name"]: node["id"] for node in there["nodes"]} == ids  # repaired, not replaced
    kept = rule_chain.read(thingsboard._told_metadata(next(iter(thingsboard.metadata))))
    assert ("Raise Faulted", "Created", "Tell the night shift") in kept.connections
    assert kept.nodes["Raise Faulted"]["configuration"]["severity"] == "CRITICAL"
    assert thingsboard.one("DEVICE_PROFILE", "EV charger")["image"]
    assert "theirs" in thingsboard.one("DASHBOARD", "EV charging")["configuration"]["widgets"]


def test_nodes_that_somebody_saves_at_the_same_moment_are_not_overwritten():
    thingsboard = FakeRestApi()
    run(install, thingsboard)
    change_severity(thingsboard)

    def beside(request):
        if request.method == "POST" and request.url.path == "/api/ruleChain/metadata":
            thingsboard.one("RULE_CHAIN", "OCPP gateway")["version"] += 1
        return thingsboard.handle(request)

    with pytest.raises(ThingsboardError, match="another client changed it"):
        run(install, thingsboard, handle=beside)
    assert node_of(thingsboard, "Raise Faulted")["configuration"]["severity"] == "MINOR"


def test_two_nodes_of_a_name_are_not_taken_for_one(thingsboard):
    run(install, thingsboard)
    (there,) = thingsboard.metadata.values()
    twin = copy.deepcopy(node_of(thingsboard, "Raise Faulted"))
    twin["id"] = {"entityType": "RULE_NODE", "id": "f" * 8 + "-0000-0000-0000-" + "0" * 12}
    there["nodes"].append(twin)
    change_profile(thingsboard)
    lost = node_of(thingsboard, "Clear Faulted")
    lost["configuration"]["alarmType"] = "Else"
    run(install, thingsboard)
    assert not any(step.is_fault for step in run(check, thingsboard))
    (there,) = thingsboard.metadata.values()
    assert [node["name"] for node in there["nodes"]].count("Raise Faulted") == 2


def test_the_root_rule_chain_is_not_touched(thingsboard):
    root = thingsboard.add(
        "/api/ruleChain", {"name": "Root Rule Chain", "type": "CORE", "root": True}
    )
    before = copy.deepcopy(root)
    run(install, thingsboard)
    run(uninstall, thingsboard)
    assert thingsboard.names("RULE_CHAIN") == ["Root Rule Chain"]
    assert thingsboard.one("RULE_CHAIN", "Root Rule Chain") == before


def test_a_name_is_found_among_many_that_are_like_it():
    thingsboard = FakeRestApi()
    for number in range(250):
        thingsboard.add("/api/device", {"name": f"ocpp-gateway {number}"})
    run(install, thingsboard)
    thingsboard.writes.clear()
    run(install, thingsboard)
    assert thingsboard.writes == []
    flagged = [
        one["name"] for one in thingsboard.entities["DEVICE"].values() if "additionalInfo" in one
    ]
    assert flagged == ["ocpp-gateway"]
    assert len(thingsboard.entities["DEVICE"]) == 251


# --- the token -----------------------------------------------------------------------------------


def test_the_token_is_shown_once(thingsboard):
    (shown,) = [step.detail for step in run(install, thingsboard) if step.what == "access token"]
    (credentials,) = thingsboard.credentials.values()
    assert shown == credentials["credentialsId"]
    assert "access token" not in outcomes(run(install, thingsboard))


def test_the_token_goes_into_a_file_for_its_owner_only(thingsboard, tmp_path):
    path = tmp_path / "access_token"
    options = Options(token_file=TokenFile(path))
    steps = run(install, thingsboard, options)
    (credentials,) = thingsboard.credentials.values()
    assert path.read_text() == credentials["credentialsId"] + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials["credentialsId"] not in "".join(map(str, steps))
    assert list(tmp_path.iterdir()) == [path]
    assert outcomes(run(install, thingsboard, options))[f"token file {path}"] == "already there"

    path.write_text("another")
    assert [step.what for step in run(check, thingsboard, options) if step.is_fault] == [
        f"token file {path}"
    ]
    run(install, thingsboard, options)
    assert path.read_text() == credentials["credentialsId"] + "\n"


def test_a_token_file_that_cannot_be_written_is_reported(tmp_path):
    options = Options(token_file=TokenFile(tmp_path / "no such folder" / "token"))
    with pytest.raises(ThingsboardError, match="cannot be written: No such file or directory"):
        run(install, FakeRestApi(), options)


def test_a_gateway_with_a_certificate_has_no_token_to_write(tmp_path):
    thingsboard = FakeRestApi()
    run(install, thingsboard)
    for credentials in thingsboard.credentials.values():
        credentials["credentialsType"] = "X509_CERTIFICATE"
    path = tmp_path / "token"
    steps = run(install, thingsboard, Options(token_file=TokenFile(path)))
    assert str(steps[-1]) == "access token: the device has X509_CERTIFICATE instead"
    assert not path.exists()


# --- taking it away ------------------------------------------------------------------------------


def test_uninstall_leaves_nothing_of_ours(thingsboard):
    before = thingsboard.everything()
    run(install, thingsboard, Options(viewer=True))
    steps = run(uninstall, thingsboard)
    assert {step.outcome for step in steps} == {"note", "removed"}
    assert thingsboard.everything()[0] == before[0]
    assert {step.outcome for step in run(uninstall, thingsboard)} == {"note", "not there"}


def test_chargers_and_their_profile_stay_and_go_back_to_the_root_chain(thingsboard):
    run(install, thingsboard)
    thingsboard.add("/api/device", {"name": "CP-1", "type": "EV charger"})
    steps = run(uninstall, thingsboard)
    told = {step.what: step for step in steps}
    assert told["device profile 'EV charger'"].outcome == "left"
    assert "delete those first" in told["device profile 'EV charger'"].detail
    assert told["rule chain 'OCPP gateway'"].outcome == "removed"
    assert thingsboard.names("DEVICE") == ["CP-1"]
    assert thingsboard.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] is None
    run(install, thingsboard)
    assert not any(step.is_fault for step in run(check, thingsboard))


def test_a_rule_chain_that_somebody_else_uses_is_left(thingsboard):
    run(install, thingsboard)
    chain = thingsboard.one("RULE_CHAIN", "OCPP gateway")["id"]
    thingsboard.add(
        "/api/deviceProfile", {**profile("EV charger"), "name": "mine", "defaultRuleChainId": chain}
    )
    steps = run(uninstall, thingsboard)
    assert steps[-1].outcome == "left"
    assert "referenced by the device profiles" in steps[-1].detail


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "reported"),
    [
        ("3.9", "must stay false"),
        ("3.9.1", "must stay false"),
        ("4.2.0", "must stay false"),
        ("4.2.1", "may be true"),
        ("4.2.1.1", "may be true"),
        ("4.3.0-SNAPSHOT", "may be true"),
        ("4.4.0", "may be true"),
        ("5.0.0", "tested up to 4.4 only"),
        ("unknown", "does not give its version"),
    ],
)
def test_the_version_decides_whether_batches_may_be_sent(version, reported):
    thingsboard = FakeRestApi(version=version)
    first = next(iter(run(check, thingsboard)))
    assert first.what == f"ThingsBoard {version}"
    assert reported in first.detail


@pytest.mark.parametrize("action", [install, check, uninstall])
def test_a_thingsboard_that_is_too_old_is_left_alone(action):
    thingsboard = FakeRestApi(version="3.8.1")
    with pytest.raises(ThingsboardError, match=r"3\.8\.1 is too old.*3\.9 or later"):
        run(action, thingsboard)
    assert thingsboard.writes == []


def test_a_server_that_runs_no_tbel_raises_no_alarms_and_it_is_said():
    told = [str(step) for step in run(check, FakeRestApi(tbel=False))]
    assert told[1].startswith("TBEL: is disabled")
    assert not any("TBEL" in str(step) for step in run(check, FakeRestApi()))


def test_an_api_key_does_as_well_from_4_3_on():
    thingsboard = FakeRestApi(version="4.3.0")
    run(install, thingsboard, login=Login(api_key=API_KEY))
    assert not any(step.is_fault for step in run(check, thingsboard, login=Login(api_key=API_KEY)))


# --- the copies for those who watch --------------------------------------------------------------


def test_a_viewer_gets_the_dashboards_without_anything_to_press():
    thingsboard = FakeRestApi()
    run(install, thingsboard, Options(viewer=True))
    configuration = thingsboard.one("DASHBOARD", "EV charging (view only)")["configuration"]
    widgets = configuration["widgets"]
    assert widgets.keys() == {"w1", "w3"}
    assert configuration["states"]["default"]["layouts"]["main"]["widgets"].keys() == {"w1", "w3"}
    assert widgets["w1"]["config"]["actions"]["rowClick"] == ACTIONS["rowClick"]
    assert widgets["w1"]["config"]["actions"]["actionCellButton"] == []
    assert widgets["w3"]["config"]["settings"] == {
        "allowClear": False, "allowAcknowledgment": False, "allowAssign": False,
    }  # fmt: skip
    untouched = thingsboard.one("DASHBOARD", "EV charging")["configuration"]
    assert untouched == TWO_DASHBOARDS[0]["configuration"]


@pytest.mark.parametrize("ours", dashboards(), ids=lambda one: one["title"])
def test_the_copies_of_our_own_dashboards_are_whole(ours):
    copied = read_only(ours)
    assert lint(copied) == []
    widgets = copied["configuration"]["widgets"].values()
    assert not any(widget["type"] == "rpc" for widget in widgets)
    for state in copied["configuration"]["states"].values():
        places = state["layouts"]["main"]["widgets"].values()
        assert min(place["row"] for place in places) == 0


def test_our_own_dashboards_are_installed(thingsboard, monkeypatch):
    monkeypatch.setattr(installer, "dashboards", dashboards)
    run(install, thingsboard, Options(viewer=True))
    assert thingsboard.names("DASHBOARD") == [
        "EV charging", "EV charging (view only)", "EV sessions", "EV sessions (view only)",
    ]  # fmt: skip
    thingsboard.writes.clear()
    run(install, thingsboard, Options(viewer=True))
    assert thingsboard.writes == []


# --- by hand -------------------------------------------------------------------------------------


def test_what_is_exported_is_what_is_installed(tmp_path):
    from gateway.provisioning.export import write

    written = list(write(tmp_path / "new" / "folder"))
    content = {path.name: json.loads(path.read_text()) for path in written}
    thingsboard = FakeRestApi()
    for name, one in content.items():
        if "profile" in name:
            thingsboard.add("/api/deviceProfile", one)
        elif "dashboard" in name:
            thingsboard.add("/api/dashboard", one)
    imported = content["1-rule-chain-ocpp-gateway.json"]
    chain = thingsboard.add("/api/ruleChain", imported["ruleChain"])
    thingsboard._save_metadata({**imported["metadata"], "ruleChainId": chain["id"]})
    for name in PROFILES:  # what remains to be done by hand
        thingsboard.one("DEVICE_PROFILE", name)["defaultRuleChainId"] = chain["id"]
    told = [step.what for step in run(check, thingsboard, Options(viewer=True)) if step.is_fault]
    assert told == ["gateway device 'ocpp-gateway'"]
    assert Path(written[0]).parent == tmp_path / "new" / "folder"


# --- the API itself ------------------------------------------------------------------------------


def test_every_call_is_one_that_thingsboards_own_client_knows():
    """`/api/system/info` is kept out of the published API, but its web pages use it."""
    called = set()
    thingsboard = FakeRestApi(version="4.4.0")

    def noting(request):
        called.add((request.method, request.url.path))
        return thingsboard.handle(request)

    run(install, thingsboard, Options(viewer=True), handle=noting)
    change_profile(thingsboard)
    run(install, thingsboard, handle=noting)
    run(uninstall, thingsboard, handle=noting)

    folder = Path(tb_ce_client.__file__).parent / "api"
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    calls = re.findall(r"method='(\w+)',\s+resource_path='([^']+)'", source)
    known = [(method, re.sub(r"\{\w+\}", r"[^/]+", path)) for method, path in calls]
    unknown = {
        path
        for method, path in called
        if not any(method == verb and re.fullmatch(known_path, path) for verb, known_path in known)
    }
    assert unknown == {"/api/system/info"}
