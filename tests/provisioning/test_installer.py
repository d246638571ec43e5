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

from .board import API_KEY, PASSWORD, USER, Board
from .linter import lint

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
def board(request):
    return Board(version=request.param)


def run(action, board, options=None, login=None, handle=None):
    transport = httpx2.MockTransport(handle or board.handle)
    login = login or Login(USER, PASSWORD)
    with open_rest("http://board:8080", login, transport=transport) as rest:
        return list(action(rest, options or Options()))


def outcomes(steps):
    return {step.what: step.outcome for step in steps}


def test_an_empty_thingsboard_gets_everything(board):
    steps = run(install, board)
    assert {step.outcome for step in steps} == {"note", "created"}
    assert board.names("DEVICE_PROFILE") == PROFILES
    assert board.names("RULE_CHAIN") == ["OCPP gateway"]
    assert board.names("DASHBOARD") == ["EV charging", "EV sessions"]
    gateway = board.one("DEVICE", "ocpp-gateway")
    assert gateway["additionalInfo"]["gateway"] is True
    chain = board.one("RULE_CHAIN", "OCPP gateway")
    for name in PROFILES:
        assert board.one("DEVICE_PROFILE", name)["defaultRuleChainId"] == chain["id"]


def test_a_second_time_nothing_is_changed(board):
    run(install, board, Options(viewer=True))
    before = board.everything()
    board.writes.clear()
    steps = run(install, board, Options(viewer=True))
    assert board.writes == []
    assert board.everything() == before
    assert {step.outcome for step in steps} == {"note", "already there"}


def test_what_is_installed_passes_the_check_and_an_empty_thingsboard_does_not(board):
    missing = run(check, board)
    assert [step.outcome for step in missing if step.at_fault] == ["missing"] * 7
    run(install, board)
    assert not any(step.at_fault for step in run(check, board))
    assert len(board.writes) == 8  # of the installation; a check writes nothing


@pytest.mark.parametrize("board", ["3.9", "4.4.0"], indirect=True)
@pytest.mark.parametrize("written", range(8))
def test_an_installation_that_was_cut_off_is_completed_by_the_next(board, written):
    board.alive = written
    with pytest.raises(ThingsboardError, match="the connection broke off"):
        run(install, board)
    board.alive = None
    run(install, board)
    assert not any(step.at_fault for step in run(check, board))
    assert board.names("RULE_CHAIN") == ["OCPP gateway"]
    assert len(board.entities["DASHBOARD"]) == 2


def change_profile(board):
    board.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] = None


def change_severity(board):
    node_of(board, "Raise Faulted")["configuration"]["severity"] = "MINOR"


def lose_node(board):
    (there,) = board.metadata.values()
    gone = node_of(board, "Raise Faulted")
    there["nodes"].remove(gone)
    there["connections"] = [one for one in there["connections"] if gone["id"]["id"] not in one]


def cut_connection(board):
    (there,) = board.metadata.values()
    there["connections"].pop()


def begin_elsewhere(board):
    (there,) = board.metadata.values()
    there["first"] = node_of(board, "RPC to device")["id"]["id"]


def change_dashboard(board):
    board.one("DASHBOARD", "EV charging")["configuration"]["widgets"]["w1"]["type"] = "static"


def take_flag(board):
    board.one("DEVICE", "ocpp-gateway")["additionalInfo"]["gateway"] = False


def node_of(board, name):
    (there,) = board.metadata.values()
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
def test_what_was_changed_is_told_by_the_check_and_repaired(board, harm, what):
    run(install, board)
    harm(board)
    assert [step.what for step in run(check, board) if step.at_fault] == [what]
    assert {step.what for step in run(install, board) if step.outcome == "updated"} == {what}
    assert not any(step.at_fault for step in run(check, board))


def test_a_profile_that_the_gateway_made_by_connecting_is_taken_over(board):
    """ThingsBoard creates a profile of the type's name when a device of it connects."""
    board.add(
        "/api/deviceProfile",
        {"name": "EV charger", "type": "DEFAULT", "transportType": "DEFAULT",
         "profileData": {"configuration": {"type": "DEFAULT"}}},
    )  # fmt: skip
    assert outcomes(run(install, board))["device profile 'EV charger'"] == "updated"
    chain = board.one("RULE_CHAIN", "OCPP gateway")
    assert board.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] == chain["id"]


def test_what_operators_added_stays(board):
    run(install, board)
    (there,) = board.metadata.values()
    mail = {
        "id": {"entityType": "RULE_NODE", "id": "0" * 8 + "-0000-0000-0000-" + "0" * 12},
        "name": "Tell the night shift",
        "type": "org.thingsboard.rule.engine.action.TbLogNode",
        "configuration": {"scriptLang": "JS", "jsScript": "return '';", "tbelScript": ""},
        "configurationVersion": 0,
    }
    there["nodes"].append(mail)
    raised = node_of(board, "Raise Faulted")
    there["connections"].append((raised["id"]["id"], "Created", mail["id"]["id"]))
    board.one("DEVICE_PROFILE", "EV charger")["image"] = "data:image/png;base64,"
    widgets = board.one("DASHBOARD", "EV charging")["configuration"]["widgets"]
    widgets["theirs"] = {"type": "static"}
    assert not any(step.at_fault for step in run(check, board))

    change_severity(board)
    change_profile(board)
    change_dashboard(board)
    ids = {node["name"]: node["id"] for node in there["nodes"]}
    run(install, board)

    (there,) = board.metadata.values()
    assert {node["name"]: node["id"] for node in there["nodes"]} == ids  # repaired, not replaced
    kept = rule_chain.read(board._told_metadata(next(iter(board.metadata))))
    assert ("Raise Faulted", "Created", "Tell the night shift") in kept.connections
    assert kept.nodes["Raise Faulted"]["configuration"]["severity"] == "CRITICAL"
    assert board.one("DEVICE_PROFILE", "EV charger")["image"]
    assert "theirs" in board.one("DASHBOARD", "EV charging")["configuration"]["widgets"]


def test_nodes_that_somebody_saves_at_the_same_moment_are_not_overwritten():
    board = Board()
    run(install, board)
    change_severity(board)

    def beside(request):
        if request.method == "POST" and request.url.path == "/api/ruleChain/metadata":
            board.one("RULE_CHAIN", "OCPP gateway")["version"] += 1
        return board.handle(request)

    with pytest.raises(ThingsboardError, match="somebody else changed it"):
        run(install, board, handle=beside)
    assert node_of(board, "Raise Faulted")["configuration"]["severity"] == "MINOR"


def test_two_nodes_of_a_name_are_not_taken_for_one(board):
    run(install, board)
    (there,) = board.metadata.values()
    twin = copy.deepcopy(node_of(board, "Raise Faulted"))
    twin["id"] = {"entityType": "RULE_NODE", "id": "f" * 8 + "-0000-0000-0000-" + "0" * 12}
    there["nodes"].append(twin)
    change_profile(board)
    lost = node_of(board, "Clear Faulted")
    lost["configuration"]["alarmType"] = "Else"
    run(install, board)
    assert not any(step.at_fault for step in run(check, board))
    (there,) = board.metadata.values()
    assert [node["name"] for node in there["nodes"]].count("Raise Faulted") == 2


def test_the_root_rule_chain_is_not_touched(board):
    root = board.add("/api/ruleChain", {"name": "Root Rule Chain", "type": "CORE", "root": True})
    before = copy.deepcopy(root)
    run(install, board)
    run(uninstall, board)
    assert board.names("RULE_CHAIN") == ["Root Rule Chain"]
    assert board.one("RULE_CHAIN", "Root Rule Chain") == before


def test_a_name_is_found_among_many_that_are_like_it():
    board = Board()
    for number in range(250):
        board.add("/api/device", {"name": f"ocpp-gateway {number}"})
    run(install, board)
    board.writes.clear()
    run(install, board)
    assert board.writes == []
    flagged = [one["name"] for one in board.entities["DEVICE"].values() if "additionalInfo" in one]
    assert flagged == ["ocpp-gateway"]
    assert len(board.entities["DEVICE"]) == 251


# --- the token -----------------------------------------------------------------------------------


def test_the_token_is_shown_once(board):
    (shown,) = [step.detail for step in run(install, board) if step.what == "access token"]
    (credentials,) = board.credentials.values()
    assert shown == credentials["credentialsId"]
    assert "access token" not in outcomes(run(install, board))


def test_the_token_goes_into_a_file_for_its_owner_only(board, tmp_path):
    path = tmp_path / "access_token"
    options = Options(token_file=TokenFile(path))
    steps = run(install, board, options)
    (credentials,) = board.credentials.values()
    assert path.read_text() == credentials["credentialsId"] + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials["credentialsId"] not in "".join(map(str, steps))
    assert list(tmp_path.iterdir()) == [path]
    assert outcomes(run(install, board, options))[f"token file {path}"] == "already there"

    path.write_text("another")
    assert [step.what for step in run(check, board, options) if step.at_fault] == [
        f"token file {path}"
    ]
    run(install, board, options)
    assert path.read_text() == credentials["credentialsId"] + "\n"


def test_a_token_file_that_cannot_be_written_is_told(tmp_path):
    options = Options(token_file=TokenFile(tmp_path / "no such folder" / "token"))
    with pytest.raises(ThingsboardError, match="cannot be written: No such file or directory"):
        run(install, Board(), options)


def test_a_gateway_with_a_certificate_has_no_token_to_write(tmp_path):
    board = Board()
    run(install, board)
    for credentials in board.credentials.values():
        credentials["credentialsType"] = "X509_CERTIFICATE"
    path = tmp_path / "token"
    steps = run(install, board, Options(token_file=TokenFile(path)))
    assert str(steps[-1]) == "access token: the device has X509_CERTIFICATE instead"
    assert not path.exists()


# --- taking it away ------------------------------------------------------------------------------


def test_uninstall_leaves_nothing_of_ours(board):
    before = board.everything()
    run(install, board, Options(viewer=True))
    steps = run(uninstall, board)
    assert {step.outcome for step in steps} == {"note", "removed"}
    assert board.everything()[0] == before[0]
    assert {step.outcome for step in run(uninstall, board)} == {"note", "not there"}


def test_chargers_and_their_profile_stay_and_go_back_to_the_root_chain(board):
    run(install, board)
    board.add("/api/device", {"name": "CP-1", "type": "EV charger"})
    steps = run(uninstall, board)
    told = {step.what: step for step in steps}
    assert told["device profile 'EV charger'"].outcome == "left"
    assert "delete those first" in told["device profile 'EV charger'"].detail
    assert told["rule chain 'OCPP gateway'"].outcome == "removed"
    assert board.names("DEVICE") == ["CP-1"]
    assert board.one("DEVICE_PROFILE", "EV charger")["defaultRuleChainId"] is None
    run(install, board)
    assert not any(step.at_fault for step in run(check, board))


def test_a_rule_chain_that_somebody_else_uses_is_left(board):
    run(install, board)
    chain = board.one("RULE_CHAIN", "OCPP gateway")["id"]
    board.add(
        "/api/deviceProfile", {**profile("EV charger"), "name": "mine", "defaultRuleChainId": chain}
    )
    steps = run(uninstall, board)
    assert steps[-1].outcome == "left"
    assert "referenced by the device profiles" in steps[-1].detail


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("3.9", "must stay false"),
        ("3.9.1", "must stay false"),
        ("4.2.0", "must stay false"),
        ("4.2.1", "may be true"),
        ("4.2.1.1", "may be true"),
        ("4.3.0-SNAPSHOT", "may be true"),
        ("4.4.0", "may be true"),
        ("5.0.0", "tried up to 4.4 only"),
        ("unknown", "does not say which it is"),
    ],
)
def test_the_version_decides_whether_batches_may_be_sent(version, told):
    board = Board(version=version)
    first = next(iter(run(check, board)))
    assert first.what == f"ThingsBoard {version}"
    assert told in first.detail


@pytest.mark.parametrize("action", [install, check, uninstall])
def test_a_thingsboard_that_is_too_old_is_left_alone(action):
    board = Board(version="3.8.1")
    with pytest.raises(ThingsboardError, match=r"3\.8\.1 is too old.*3\.9 or later"):
        run(action, board)
    assert board.writes == []


def test_a_server_that_runs_no_tbel_raises_no_alarms_and_it_is_said():
    told = [str(step) for step in run(check, Board(tbel=False))]
    assert told[1].startswith("TBEL: is switched off")
    assert not any("TBEL" in str(step) for step in run(check, Board()))


def test_an_api_key_does_as_well_from_4_3_on():
    board = Board(version="4.3.0")
    run(install, board, login=Login(api_key=API_KEY))
    assert not any(step.at_fault for step in run(check, board, login=Login(api_key=API_KEY)))


# --- the copies for those who watch --------------------------------------------------------------


def test_a_viewer_gets_the_dashboards_without_anything_to_press():
    board = Board()
    run(install, board, Options(viewer=True))
    configuration = board.one("DASHBOARD", "EV charging (view only)")["configuration"]
    widgets = configuration["widgets"]
    assert widgets.keys() == {"w1", "w3"}
    assert configuration["states"]["default"]["layouts"]["main"]["widgets"].keys() == {"w1", "w3"}
    assert widgets["w1"]["config"]["actions"]["rowClick"] == ACTIONS["rowClick"]
    assert widgets["w1"]["config"]["actions"]["actionCellButton"] == []
    assert widgets["w3"]["config"]["settings"] == {
        "allowClear": False, "allowAcknowledgment": False, "allowAssign": False,
    }  # fmt: skip
    untouched = board.one("DASHBOARD", "EV charging")["configuration"]
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


def test_our_own_dashboards_are_installed(board, monkeypatch):
    monkeypatch.setattr(installer, "dashboards", dashboards)
    run(install, board, Options(viewer=True))
    assert board.names("DASHBOARD") == [
        "EV charging", "EV charging (view only)", "EV sessions", "EV sessions (view only)",
    ]  # fmt: skip
    board.writes.clear()
    run(install, board, Options(viewer=True))
    assert board.writes == []


# --- by hand -------------------------------------------------------------------------------------


def test_what_is_exported_is_what_is_installed(tmp_path):
    from gateway.provisioning.export import write

    written = list(write(tmp_path / "new" / "folder"))
    content = {path.name: json.loads(path.read_text()) for path in written}
    board = Board()
    for name, one in content.items():
        if "profile" in name:
            board.add("/api/deviceProfile", one)
        elif "dashboard" in name:
            board.add("/api/dashboard", one)
    imported = content["1-rule-chain-ocpp-gateway.json"]
    chain = board.add("/api/ruleChain", imported["ruleChain"])
    board._save_metadata({**imported["metadata"], "ruleChainId": chain["id"]})
    for name in PROFILES:  # what remains to be done by hand
        board.one("DEVICE_PROFILE", name)["defaultRuleChainId"] = chain["id"]
    told = [step.what for step in run(check, board, Options(viewer=True)) if step.at_fault]
    assert told == ["gateway device 'ocpp-gateway'"]
    assert Path(written[0]).parent == tmp_path / "new" / "folder"


# --- the API itself ------------------------------------------------------------------------------


def test_every_call_is_one_that_thingsboards_own_client_knows():
    """`/api/system/info` is kept out of the published API, but its web pages use it."""
    called = set()
    board = Board(version="4.4.0")

    def noting(request):
        called.add((request.method, request.url.path))
        return board.handle(request)

    run(install, board, Options(viewer=True), handle=noting)
    change_profile(board)
    run(install, board, handle=noting)
    run(uninstall, board, handle=noting)

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
