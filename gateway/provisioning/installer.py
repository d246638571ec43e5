"""Puts into ThingsBoard what operators need, says what of it is missing, and takes it away.

Everything is found by its name, so each of the three may be run again at any time, also after
one that was cut off in the middle.  What is as it should be is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from . import rule_chain, version
from .changes import differences, merged
from .dashboards import dashboards
from .device_profiles import DESCRIPTIONS, profile
from .errors import Refused, ThingsboardError
from .rest import Entity, Rest
from .token_file import TokenFile
from .version import Version
from .viewer import read_only

CREATED, UPDATED, THERE = "created", "updated", "already there"
MISSING, CHANGED = "missing", "changed"
REMOVED, ABSENT, LEFT = "removed", "not there", "left"
NOTE = "note"
FAULTS = frozenset({MISSING, CHANGED})


@attrs.frozen(kw_only=True)
class Options:
    """token_file: where the gateway device's access token goes; None: nowhere.

    viewer: also the dashboards' copies that carry no orders.
    """

    gateway_name: str = "ocpp-gateway"
    token_file: TokenFile | None = None
    viewer: bool = False


@attrs.frozen
class Step:
    """What was found or done about one thing, and what an operator should know of it."""

    what: str
    outcome: str
    detail: str = ""

    @property
    def at_fault(self) -> bool:
        return self.outcome in FAULTS

    def __str__(self) -> str:
        if self.outcome == NOTE:
            return f"{self.what}: {self.detail}"
        return f"{self.what}: {self.outcome}" + (f" ({self.detail})" if self.detail else "")


def install(rest: Rest, options: Options) -> Iterator[Step]:
    """Create what is missing, repair what is changed; a step for each thing."""
    return _Visit(rest, options, change=True).steps()


def check(rest: Rest, options: Options) -> Iterator[Step]:
    """Say of each thing whether it is as `install` would have it; change nothing."""
    return _Visit(rest, options, change=False).steps()


def all_dashboards(*, viewer: bool) -> Sequence[Entity]:
    ours = dashboards()
    return [*ours, *map(read_only, ours)] if viewer else ours


def asked_version(rest: Rest) -> Version:
    """The server's.  Raises ThingsboardError where it is too old."""
    found = version.read(rest.get("/api/system/info"))
    if found.too_old:
        raise ThingsboardError(
            f"ThingsBoard {found.text} is too old: the rule chain and dashboards need"
            f" {_dotted(version.OLDEST)} or later"
        )
    return found


def _version_step(rest: Rest) -> Step:
    found = asked_version(rest)
    tried = f"; tried up to {_dotted(version.NEWEST)} only" if found.untried else ""
    return Step(f"ThingsBoard {found.text}", NOTE, found.advice + tried)


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


class _Visit:
    """One walk through all that is ours.  change: whether it may write."""

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
        """Conditions are written in TBEL, which a server may have switched off."""
        if self._rest.get("/api/ruleChain/tbelEnabled") is False:
            why = "is switched off (TBEL_ENABLED): no alarm will be raised until it is on"
            yield Step("TBEL", NOTE, why)

    def _chain(self) -> tuple[Entity | None, Step]:
        ours = {
            "name": rule_chain.NAME,
            "type": "CORE",
            "additionalInfo": {"description": rule_chain.DESCRIPTION},
        }
        there = _chain_there(self._rest)
        return self._saved(f"rule chain {rule_chain.NAME!r}", "/api/ruleChain", there, ours)

    def _metadata(self, chain: Entity) -> Step:
        what = f"nodes of {rule_chain.NAME!r}"
        answer = self._rest.get(f"/api/ruleChain/{_id(chain)}/metadata")
        try:
            there = rule_chain.read(answer)
        except (KeyError, IndexError, TypeError):
            raise ThingsboardError("the rule chain's nodes are not what was expected") from None
        wrong = rule_chain.differences(there)
        if not wrong:
            return Step(what, THERE)
        if not self._change:
            return Step(what, CHANGED if there.nodes else MISSING, _listed(wrong))
        self._rest.post("/api/ruleChain/metadata", rule_chain.body(chain["id"], answer))
        return Step(
            what, UPDATED if there.nodes else CREATED, _listed(wrong) if there.nodes else ""
        )

    def _profile(self, name: str, chain: Entity | None) -> Step:
        ours = profile(name)
        if chain is not None:
            ours["defaultRuleChainId"] = {"entityType": "RULE_CHAIN", "id": _id(chain)}
        there = self._rest.named("/api/deviceProfiles", "name", name)
        return self._saved(f"device profile {name!r}", "/api/deviceProfile", there, ours)[1]

    def _dashboard(self, ours: Entity) -> Step:
        title = ours["title"]
        there = _dashboard_there(self._rest, title)
        return self._saved(f"dashboard {title!r}", "/api/dashboard", there, ours)[1]

    def _device(self) -> tuple[Entity | None, Step]:
        name = self._options.gateway_name
        there = self._rest.named("/api/tenant/devices", "name", name)
        ours = {"name": name, "additionalInfo": {"gateway": True}}
        return self._saved(f"gateway device {name!r}", "/api/device", there, ours)

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
        elif file.holds(token):
            yield Step(f"token file {file}", THERE)
        elif self._change:
            file.write(token)
            yield Step(f"token file {file}", UPDATED, "the gateway must be started again with it")
        else:
            yield Step(f"token file {file}", CHANGED, "it holds no or another token")

    def _saved(
        self, what: str, path: str, there: Entity | None, ours: Mapping[str, Any]
    ) -> tuple[Entity | None, Step]:
        """The entity as it then is, and the step."""
        if there is None:
            if not self._change:
                return None, Step(what, MISSING)
            return self._rest.post(path, ours), Step(what, CREATED)
        wrong = list(differences(there, ours))
        if not wrong:
            return there, Step(what, THERE)
        if not self._change:
            return there, Step(what, CHANGED, _listed(wrong))
        return self._rest.post(path, merged(there, ours)), Step(what, UPDATED, _listed(wrong))


# --- taking away ---------------------------------------------------------------------------------


def uninstall(rest: Rest, options: Options) -> Iterator[Step]:
    """Remove what install made, but not the devices of chargers, nor their data."""
    yield _version_step(rest)
    for dashboard in all_dashboards(viewer=True):
        title = dashboard["title"]
        there = rest.named("/api/tenant/dashboards", "title", title)
        yield _removed(rest, f"dashboard {title!r}", "/api/dashboard", there)
    for name in DESCRIPTIONS:
        yield _profile_removed(rest, name)
    name = options.gateway_name
    there = rest.named("/api/tenant/devices", "name", name)
    yield _removed(rest, f"gateway device {name!r}", "/api/device", there)
    what = f"rule chain {rule_chain.NAME!r}"
    try:
        yield _removed(rest, what, "/api/ruleChain", _chain_there(rest))
    except Refused as exc:
        yield Step(what, LEFT, exc.said)


def _profile_removed(rest: Rest, name: str) -> Step:
    what = f"device profile {name!r}"
    there = rest.named("/api/deviceProfiles", "name", name)
    try:
        return _removed(rest, what, "/api/deviceProfile", there)
    except Refused as exc:
        if there is None or exc.status != 400:
            raise
    # Its devices go back to the root rule chain, for ours is to be removed.
    if there.get("defaultRuleChainId") is not None:
        rest.post("/api/deviceProfile", {**there, "defaultRuleChainId": None})
    return Step(what, LEFT, "devices have it: delete those first, then run this again")


def _removed(rest: Rest, what: str, path: str, there: Entity | None) -> Step:
    if there is None:
        return Step(what, ABSENT)
    rest.delete(f"{path}/{_id(there)}")
    return Step(what, REMOVED)


# --- finding -------------------------------------------------------------------------------------


def _chain_there(rest: Rest) -> Entity | None:
    return rest.named("/api/ruleChains", "name", rule_chain.NAME, type="CORE")


def _dashboard_there(rest: Rest, title: str) -> Entity | None:
    """The whole dashboard; the list has them without their insides."""
    found = rest.named("/api/tenant/dashboards", "title", title)
    return None if found is None else dict(rest.get(f"/api/dashboard/{_id(found)}"))


def _id(entity: Entity) -> str:
    try:
        return str(entity["id"]["id"])
    except (KeyError, TypeError):
        raise ThingsboardError("an answer without an id: is --url that of ThingsBoard?") from None


def _listed(wrong: Sequence[str]) -> str:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return ", ".join(wrong[:3]) + more
