"""A fake of ThingsBoard's REST API: it keeps state, and responds as the real server does.

Requests are validated by the models of `tb-ce-client`; those silently drop unknown keys, so each
request is also compared with what the model kept.  `FakeRestApi.handle` is the handler of an
httpx2 transport; `served` puts it on a real port.

Sources: the controllers and `ThingsboardErrorResponseHandler` of thingsboard/thingsboard; the node
classes' `upgrade` methods for what each version makes of a configuration.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx2
from tb_ce_client.models.dashboard import Dashboard
from tb_ce_client.models.device import Device
from tb_ce_client.models.device_profile import DeviceProfile
from tb_ce_client.models.rule_chain import RuleChain
from tb_ce_client.models.rule_chain_meta_data import RuleChainMetaData

from .rule_nodes import upgraded

USER, PASSWORD, API_KEY = "tenant@thingsboard.org", "s3cret", "tb_k3y"


DASHBOARD_EXTRAS = {"name", "image", "mobileHide", "mobileOrder"}


class Fault(Exception):
    """A response with another status than 200."""

    def __init__(self, status: int, message: str, code: int) -> None:
        super().__init__(message)
        self.status = status
        self.answer = {"status": status, "message": message, "errorCode": code, "timestamp": 0}


def invalid(message: str) -> Fault:
    return Fault(400, message, 31)


@attrs.frozen
class Kind:
    """path: of one; many: of the list; model: of tb-ce-client; key: its name."""

    path: str
    many: str
    model: Any
    entity_type: str
    key: str = "name"
    unique: bool = True


KINDS = (
    Kind("/api/deviceProfile", "/api/deviceProfiles", DeviceProfile, "DEVICE_PROFILE"),
    Kind("/api/device", "/api/tenant/devices", Device, "DEVICE"),
    Kind("/api/ruleChain", "/api/ruleChains", RuleChain, "RULE_CHAIN", unique=False),
    Kind("/api/dashboard", "/api/tenant/dashboards", Dashboard, "DASHBOARD", "title", unique=False),
)


SERVERS_OWN = {"createdTime", "tenantId", "customerId", "ruleChainId"}
"""What the models take, but leave out of requests, for it is the server's to write."""


def dropped(sent: Any, kept: Any, where: str = "") -> list[str]:
    """What a model did not take over of what was sent; null is as good as absent."""
    if sent is None:
        return []
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [
            place
            for key, one in sent.items()
            if key not in SERVERS_OWN
            for place in dropped(one, kept.get(key), f"{where}.{key}")
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            place
            for index, (one, other) in enumerate(zip(sent, kept, strict=True))
            for place in dropped(one, other, f"{where}[{index}]")
        ]
    if isinstance(kept, uuid.UUID):
        kept = str(kept)
    return [] if sent == kept else [where]


@attrs.define
class FakeRestApi:
    """version: such as 4.2.1.1.  authority: of the user who logs in.

    writes: the calls that changed something, as "POST /api/dashboard".  alive: how many more of
    them it answers before it is gone; None: all.
    """

    version: str = "4.2.1.1"
    authority: str = "TENANT_ADMIN"
    tbel: bool = True
    alive: int | None = None
    writes: list[str] = attrs.field(factory=list)
    entities: dict[str, dict[str, dict[str, Any]]] = attrs.field(
        factory=lambda: {kind.entity_type: {} for kind in KINDS}
    )
    metadata: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    credentials: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    tokens: list[str] = attrs.field(factory=list)

    @property
    def parts(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    # --- for tests -------------------------------------------------------------------------------

    def one(self, entity_type: str, name: str) -> dict[str, Any]:
        key = "title" if entity_type == "DASHBOARD" else "name"
        (found,) = [one for one in self.entities[entity_type].values() if one[key] == name]
        return found

    def names(self, entity_type: str) -> list[str]:
        key = "title" if entity_type == "DASHBOARD" else "name"
        return sorted(one[key] for one in self.entities[entity_type].values())

    def everything(self) -> Any:
        return copy.deepcopy((self.entities, self.metadata, self.credentials))

    def add(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create it as another client would, by hand or by connecting a device."""
        (kind,) = [kind for kind in KINDS if kind.path == path]
        return self._saved(kind, body)

    # --- the API ---------------------------------------------------------------------------------

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        status, answer = self.answer(
            request.method, str(request.url), dict(request.headers), request.content
        )
        content = b"" if answer is None else json.dumps(answer).encode()
        return httpx2.Response(status, content=content)

    def answer(
        self, method: str, url: str, headers: dict[str, str], content: bytes
    ) -> tuple[int, Any]:
        parts = urlsplit(url)
        query = {key: value[-1] for key, value in parse_qs(parts.query).items()}
        body = json.loads(content) if content else None
        lower = {key.lower(): value for key, value in headers.items()}
        try:
            if parts.path != "/api/auth/login":
                self._let_in(lower.get("x-authorization", ""))
                if method != "GET":
                    self._count(f"{method} {parts.path}")
            return 200, self._answer(method, parts.path, query, body)
        except Fault as exc:
            return exc.status, exc.answer

    def _count(self, what: str) -> None:
        if self.alive is not None:
            if self.alive == 0:
                raise httpx2.ReadError("[Errno 104] Connection reset by peer")
            self.alive -= 1
        self.writes.append(what)

    def _let_in(self, shown: str) -> None:
        scheme, _, secret = shown.partition(" ")
        known = scheme == "Bearer" and secret in self.tokens
        if scheme == "ApiKey":
            known = secret == API_KEY and self.parts >= (4, 3)
        if not known:
            raise Fault(401, "Authentication failed", 10)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        match method, path.removeprefix("/api/").split("/"):
            case "POST", ["auth", "login"]:
                return self._login(body)
            case "GET", ["auth", "user"]:
                return {"email": USER, "authority": self.authority}
            case "GET", ["system", "info"]:
                return {"version": self.version, "artifact": "application", "name": "ThingsBoard"}
            case "GET", ["ruleChain", "tbelEnabled"]:
                return self.tbel
            case "POST", ["ruleChain", "metadata"]:
                return self._save_metadata(body)
            case "GET", ["ruleChain", chain, "metadata"]:
                self._existing("RULE_CHAIN", chain)
                return self._told_metadata(chain)
            case "GET", ["device", device, "credentials"]:
                self._existing("DEVICE", device)
                return copy.deepcopy(self.credentials[device])
        if self.authority != "TENANT_ADMIN":
            raise Fault(403, "You don't have permission to perform this operation!", 20)
        for kind in KINDS:
            if path == kind.many and method == "GET":
                return self._page(kind, query)
            if path == kind.path and method == "POST":
                return copy.deepcopy(self._saved(kind, body))
            if path.startswith(kind.path + "/"):
                there = self._existing(kind.entity_type, path.rpartition("/")[2])
                if method == "GET":
                    return copy.deepcopy(there)
                if method == "DELETE":
                    return self._delete(kind, there)
        raise Fault(404, "Not Found", 32)

    def _login(self, body: Any) -> Any:
        if (body.get("username"), body.get("password")) != (USER, PASSWORD):
            raise Fault(401, "Invalid username or password", 10)
        self.tokens.append(uuid.uuid4().hex)
        return {"token": self.tokens[-1], "refreshToken": "r", "scope": None}

    def _existing(self, entity_type: str, key: str) -> dict[str, Any]:
        there = self.entities[entity_type].get(key)
        if there is None:
            raise Fault(404, "Requested item wasn't found!", 32)
        return there

    def _page(self, kind: Kind, query: dict[str, str]) -> Any:
        size, page = int(query["pageSize"]), int(query["page"])
        text = query.get("textSearch", "").lower()
        found = [
            one
            for one in self.entities[kind.entity_type].values()
            if text in one[kind.key].lower()
            and (kind.entity_type != "RULE_CHAIN" or one["type"] == query.get("type", "CORE"))
        ]
        shown = copy.deepcopy(found[page * size : (page + 1) * size])
        for one in shown:  # DashboardInfo
            if kind.entity_type == "DASHBOARD":
                del one["configuration"]
        return {
            "data": shown,
            "totalPages": -(-len(found) // size),
            "totalElements": len(found),
            "hasNext": (page + 1) * size < len(found),
        }

    # --- writing ---------------------------------------------------------------------------------

    def _saved(self, kind: Kind, body: Any) -> dict[str, Any]:
        self._judge(kind.model, body)
        there: dict[str, Any] = {}
        if body.get("id"):
            there = self._existing(kind.entity_type, body["id"]["id"])
            self._same_version(there, body)
        for other in self.entities[kind.entity_type].values():
            if kind.unique and other is not there and other[kind.key] == body[kind.key]:
                raise invalid(f"{kind.model.__name__} with such name already exists!")
        chain = body.get("defaultRuleChainId")
        if chain is not None and chain["id"] not in self.entities["RULE_CHAIN"]:
            raise invalid("Can't assign a non-existent rule chain!")
        key = there["id"]["id"] if there else str(uuid.uuid4())
        saved = copy.deepcopy(body)
        saved["id"] = {"entityType": kind.entity_type, "id": key}
        saved["version"] = there.get("version", 0) + 1
        saved.setdefault("createdTime", 1_700_000_000_000)
        self._complete(kind, saved, new=not there)
        self.entities[kind.entity_type][key] = saved
        return saved

    def _complete(self, kind: Kind, saved: dict[str, Any], *, new: bool) -> None:
        """What the server adds by itself."""
        key = saved["id"]["id"]
        match kind.entity_type:
            case "DEVICE_PROFILE":
                saved.setdefault("default", False)
                saved.setdefault("defaultRuleChainId", None)
                if self.parts < (4, 3):
                    saved["profileData"].setdefault("alarms", None)
            case "RULE_CHAIN":
                saved.setdefault("firstRuleNodeId", None)
                self.metadata.setdefault(key, {"first": None, "nodes": [], "connections": []})
            case "DASHBOARD":
                saved["name"] = saved["title"]
                saved.setdefault("assignedCustomers", None)
            case "DEVICE":
                saved.setdefault("type", "default")
                if new:
                    self.credentials[key] = {
                        "id": {"id": str(uuid.uuid4())},
                        "deviceId": saved["id"],
                        "credentialsType": "ACCESS_TOKEN",
                        "credentialsId": uuid.uuid4().hex[:20],
                        "credentialsValue": None,
                    }

    def _judge(self, model: Any, body: Any) -> None:
        if model is Dashboard:  # its model has these for reading only; the server saves them
            body = {key: value for key, value in body.items() if key not in DASHBOARD_EXTRAS}
        if model is DeviceProfile and self.parts < (4, 3) and "profileData" in body:
            body = copy.deepcopy(body)
            body["profileData"].pop("alarms", None)  # the newest model knows it no longer
        try:
            kept = model.from_dict(copy.deepcopy(body)).to_dict()
        except Exception as exc:  # pydantic's, KeyError, TypeError: all mean a bad body
            raise invalid(f"Malformed json: {exc}") from exc
        lost = dropped(body, kept)
        assert not lost, f"{model.__name__} does not know {lost}"

    def _same_version(self, there: dict[str, Any], body: Any) -> None:
        if body.get("version") is not None and body["version"] != there["version"]:
            raise Fault(409, "Entity was already changed by somebody else", 35)

    def _told_metadata(self, chain: str) -> Any:
        there = self.metadata[chain]
        places = {node["id"]["id"]: index for index, node in enumerate(there["nodes"])}
        return {
            "ruleChainId": {"entityType": "RULE_CHAIN", "id": chain},
            "version": self.entities["RULE_CHAIN"][chain]["version"],
            "firstNodeIndex": None if there["first"] is None else places[there["first"]],
            "nodes": copy.deepcopy(there["nodes"]),
            "connections": [
                {"fromIndex": places[start], "toIndex": places[end], "type": relation}
                for start, relation, end in there["connections"]
            ],
            "ruleChainConnections": None,
        }

    def _save_metadata(self, body: Any) -> Any:
        self._judge(RuleChainMetaData, body)
        chain = self._existing("RULE_CHAIN", body["ruleChainId"]["id"])
        self._same_version(chain, body)
        key = chain["id"]["id"]
        known = {node["id"]["id"] for node in self.metadata[key]["nodes"]}
        nodes = []
        for sent in body["nodes"]:
            if sent.get("id") is not None and sent["id"]["id"] not in known:
                raise invalid("Can't save rule node with an id that does not exist!")
            node = copy.deepcopy(sent)
            try:
                upgraded(node, self.parts)
            except ValueError as exc:
                raise invalid(f"Rule node {node['name']!r}: {exc}") from exc
            node.setdefault("id", {"entityType": "RULE_NODE", "id": str(uuid.uuid4())})
            node["ruleChainId"] = chain["id"]
            node.setdefault("singletonMode", False)
            nodes.append(node)
        ids = [node["id"]["id"] for node in nodes]
        self.metadata[key] = {
            "first": ids[body["firstNodeIndex"]],
            "connections": [
                (ids[one["fromIndex"]], one["type"], ids[one["toIndex"]])
                for one in body["connections"]
            ],
            # it gives them back in an order of its own
            "nodes": sorted(nodes, key=lambda node: node["id"]["id"]),
        }
        chain["version"] += 1
        return self._told_metadata(key)

    def _delete(self, kind: Kind, there: dict[str, Any]) -> None:
        key = there["id"]["id"]
        profiles = self.entities["DEVICE_PROFILE"].values()
        if kind.entity_type == "DEVICE_PROFILE" and any(
            device["type"] == there["name"] for device in self.entities["DEVICE"].values()
        ):
            raise invalid("The device profile referenced by the devices cannot be deleted!")
        if kind.entity_type == "RULE_CHAIN" and any(
            (profile["defaultRuleChainId"] or {}).get("id") == key for profile in profiles
        ):
            raise invalid("The rule chain referenced by the device profiles cannot be deleted!")
        del self.entities[kind.entity_type][key]


def handler(thingsboard: FakeRestApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = thingsboard.answer(
                self.command, self.path, dict(self.headers), content
            )
            told = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815  as http.server wants it

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def served(thingsboard: FakeRestApi) -> Iterator[str]:
    """The thingsboard on a free port of the loopback, while the block runs; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(thingsboard))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
