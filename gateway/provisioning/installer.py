"""Installs, checks and removes the entities that operators need in ThingsBoard.

Everything is found by its name, so each of the three may run again at any time, also after an
interrupted one.  An entity that is as expected is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from . import rule_chain, version
from .changes import differences, merged
from .dashboards import dashboards
from .device_profiles import DESCRIPTIONS, profile
from .errors import RequestRefused, ThingsboardError
from .rest import Entity, Rest
from .token_file import TokenFile
from .version import Version
from .viewer import read_only

CREATED, UPDATED, PRESENT = "created", "updated", "already there"
MISSING, CHANGED = "missing", "changed"
REMOVED, ABSENT, LEFT = "removed", "not there", "left"
NOTE = "note"
FAULTS = frozenset({MISSING, CHANGED})


@attrs.frozen(kw_only=True)
class Options:
    """token_file: receives the gateway device's access token; None means no file.

    viewer: also install the copies of the dashboards without RPC widgets.
    """

    gateway_name: str = "ocpp-gateway"
    token_file: TokenFile | None = None
    viewer: bool = False


@attrs.frozen
class Step:
    """The outcome for one entity, and a detail for the operator."""

    what: str
    outcome: str
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome in FAULTS

    def __str__(self) -> str:
        if self.outcome == NOTE:
            return f"{self.what}: {self.detail}"
        return f"{self.what}: {self.outcome}" + (f" ({self.detail})" if self.detail else "")


def install(rest: Rest, options: Options) -> Iterator[Step]:
    """Create what is missing, repair what is changed; yields a step for each entity."""
    return _Installation(rest, options, change=True).steps()


def check(rest: Rest, options: Options) -> Iterator[Step]:
    """Compare each entity with what `install` would make of it; changes nothing."""
    return _Installation(rest, options, change=False).steps()


def all_dashboards(*, viewer: bool) -> Sequence[Entity]:
    expected = dashboards()
    return [*expected, *map(read_only, expected)] if viewer else expected


def server_version(rest: Rest) -> Version:
    """The server's version.  Raises ThingsboardError where it is too old."""
    found = version.read(rest.get("/api/system/info"))
    if found.is_too_old:
        raise ThingsboardError(
            f"ThingsBoard {found.text} is too old: the rule chain and dashboards need"
            f" {_dotted(version.OLDEST)} or later"
        )
    return found


def _version_step(rest: Rest) -> Step:
    found = server_version(rest)
    untested = f"; tested up to {_dotted(version.NEWEST)} only" if found.is_untested else ""
    return Step(f"ThingsBoard {found.text}", NOTE, found.advice + untested)


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


class _Installation:
    """Goes through all entities.  change: whether it may write."""

    def __init__(self, rest: Rest, options: Options, *, change: bool) -> None:
        self._rest = rest
        self._options = options
        self._change = change

    def steps(self) -> Iterator[Step]:
        yield _version_step(self._rest)
        yield from self._scripts()
        chain, step = self._chain()
        yield step
        if chain is not None:
            yield self._metadata(chain)
        for name in DESCRIPTIONS:
            yield self._profile(name, chain)
        for dashboard in all_dashboards(viewer=self._options.viewer):
            yield self._dashboard(dashboard)
        device, step = self._device()
        yield step
        yield from self._token(device, new=step.outcome == CREATED)

    def _scripts(self) -> Iterator[Step]:
        """The rule chain's conditions are TBEL scripts, which a server may have disabled."""
        if self._rest.get("/api/ruleChain/tbelEnabled") is False:
            why = "is disabled (TBEL_ENABLED): no alarm is raised until it is enabled"
            yield Step("TBEL", NOTE, why)

    def _chain(self) -> tuple[Entity | None, Step]:
        expected = {
            "name": rule_chain.NAME,
            "type": "CORE",
            "additionalInfo": {"description": rule_chain.DESCRIPTION},
        }
        existing = _find_chain(self._rest)
        return self._save(f"rule chain {rule_chain.NAME!r}", "/api/ruleChain", existing, expected)

    def _metadata(self, chain: Entity) -> Step:
        what = f"nodes of {rule_chain.NAME!r}"
        answer = self._rest.get(f"/api/ruleChain/{_id(chain)}/metadata")
        try:
            existing = rule_chain.read(answer)
        except (KeyError, IndexError, TypeError):
            raise ThingsboardError("the rule chain's nodes are not what was expected") from None
        wrong = rule_chain.differences(existing)
        if not wrong:
            return Step(what, PRESENT)
        if not self._change:
            return Step(what, CHANGED if existing.nodes else MISSING, _summary(wrong))
        self._rest.post("/api/ruleChain/metadata", rule_chain.body(chain["id"], answer))
        return Step(
            what, UPDATED if existing.nodes else CREATED, _summary(wrong) if existing.nodes else ""
        )

    def _profile(self, name: str, chain: Entity | None) -> Step:
        expected = profile(name)
        if chain is not None:
            expected["defaultRuleChainId"] = {"entityType": "RULE_CHAIN", "id": _id(chain)}
        existing = self._rest.find_by_name("/api/deviceProfiles", "name", name)
        return self._save(f"device profile {name!r}", "/api/deviceProfile", existing, expected)[1]

    def _dashboard(self, expected: Entity) -> Step:
        title = expected["title"]
        existing = _find_dashboard(self._rest, title)
        return self._save(f"dashboard {title!r}", "/api/dashboard", existing, expected)[1]

    def _device(self) -> tuple[Entity | None, Step]:
        name = self._options.gateway_name
        existing = self._rest.find_by_name("/api/tenant/devices", "name", name)
        expected = {"name": name, "additionalInfo": {"gateway": True}}
        return self._save(f"gateway device {name!r}", "/api/device", existing, expected)

    def _token(self, device: Entity | None, *, new: bool) -> Iterator[Step]:
        file = self._options.token_file
        if device is None or (file is None and not new):
            return
        answer = self._rest.get(f"/api/device/{_id(device)}/credentials")
        if answer["credentialsType"] != "ACCESS_TOKEN":
            yield Step("access token", NOTE, f"the device has {answer['credentialsType']} instead")
            return
        token = str(answer["credentialsId"])
        if file is None:
            yield Step("access token", NOTE, token)
        elif file.contains(token):
            yield Step(f"token file {file}", PRESENT)
        elif self._change:
            file.write(token)
            yield Step(f"token file {file}", UPDATED, "the gateway must be started again with it")
        else:
            yield Step(f"token file {file}", CHANGED, "it holds no or another token")

    def _save(
        self, what: str, path: str, existing: Entity | None, expected: Mapping[str, Any]
    ) -> tuple[Entity | None, Step]:
        """The entity as it is afterwards, and the step."""
        if existing is None:
            if not self._change:
                return None, Step(what, MISSING)
            return self._rest.post(path, expected), Step(what, CREATED)
        wrong = list(differences(existing, expected))
        if not wrong:
            return existing, Step(what, PRESENT)
        if not self._change:
            return existing, Step(what, CHANGED, _summary(wrong))
        return self._rest.post(path, merged(existing, expected)), Step(
            what, UPDATED, _summary(wrong)
        )


# --- uninstall -----------------------------------------------------------------------------------


def uninstall(rest: Rest, options: Options) -> Iterator[Step]:
    """Remove what install created, but not the devices of chargers, nor their data."""
    yield _version_step(rest)
    for dashboard in all_dashboards(viewer=True):
        title = dashboard["title"]
        existing = rest.find_by_name("/api/tenant/dashboards", "title", title)
        yield _remove(rest, f"dashboard {title!r}", "/api/dashboard", existing)
    for name in DESCRIPTIONS:
        yield _remove_profile(rest, name)
    name = options.gateway_name
    existing = rest.find_by_name("/api/tenant/devices", "name", name)
    yield _remove(rest, f"gateway device {name!r}", "/api/device", existing)
    what = f"rule chain {rule_chain.NAME!r}"
    try:
        yield _remove(rest, what, "/api/ruleChain", _find_chain(rest))
    except RequestRefused as exc:
        yield Step(what, LEFT, exc.message)


def _remove_profile(rest: Rest, name: str) -> Step:
    what = f"device profile {name!r}"
    existing = rest.find_by_name("/api/deviceProfiles", "name", name)
    try:
        return _remove(rest, what, "/api/deviceProfile", existing)
    except RequestRefused as exc:
        if existing is None or exc.status != 400:
            raise
    # Its devices return to the root rule chain, since their rule chain is removed next.
    if existing.get("defaultRuleChainId") is not None:
        rest.post("/api/deviceProfile", {**existing, "defaultRuleChainId": None})
    return Step(what, LEFT, "devices have it: delete those first, then run this again")


def _remove(rest: Rest, what: str, path: str, existing: Entity | None) -> Step:
    if existing is None:
        return Step(what, ABSENT)
    rest.delete(f"{path}/{_id(existing)}")
    return Step(what, REMOVED)


# --- finding entities ----------------------------------------------------------------------------


def _find_chain(rest: Rest) -> Entity | None:
    return rest.find_by_name("/api/ruleChains", "name", rule_chain.NAME, type="CORE")


def _find_dashboard(rest: Rest, title: str) -> Entity | None:
    """The whole dashboard; the list has no configurations."""
    found = rest.find_by_name("/api/tenant/dashboards", "title", title)
    return None if found is None else dict(rest.get(f"/api/dashboard/{_id(found)}"))


def _id(entity: Entity) -> str:
    try:
        return str(entity["id"]["id"])
    except (KeyError, TypeError):
        raise ThingsboardError("an answer without an id: is --url that of ThingsBoard?") from None


def _summary(wrong: Sequence[str]) -> str:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return ", ".join(wrong[:3]) + more
