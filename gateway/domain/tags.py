"""Who may charge: id tag -> IdTagInfo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from .clock import iso

MAX_LENGTH = 20  # OCPP 1.6 §7.28 CiString20


@attrs.frozen(kw_only=True)
class IdTag:
    """status: of OCPP's AuthorizationStatus; expires: aware, None for never."""

    status: str = "Accepted"
    expires: datetime | None = None
    parent: str | None = None


@attrs.frozen
class TagList:
    """The tags known by name, in lower case: OCPP 1.6 compares id tags without case."""

    tags: Mapping[str, IdTag] = attrs.field(factory=dict)
    accept_unknown: bool = True

    def info(self, id_tag: str, now: datetime) -> dict[str, str]:
        """OCPP's IdTagInfo (§7.27) for a presented tag."""
        known = self.tags.get(id_tag.lower())
        if known is None:
            usable = self.accept_unknown and 0 < len(id_tag) <= MAX_LENGTH
            return {"status": "Accepted" if usable else "Invalid"}
        expired = known.expires is not None and known.expires <= now
        status = "Expired" if expired and known.status == "Accepted" else known.status
        info = {"status": status}
        if known.expires is not None:
            info["expiryDate"] = iso(known.expires, "seconds")
        if known.parent:
            info["parentIdTag"] = known.parent
        return info

    def owner(self, id_tag: str) -> str:
        """Whoever shows the tag, in lower case: its parent, where it has one."""
        id_tag = id_tag.lower()
        known = self.tags.get(id_tag)
        return known.parent.lower() if known is not None and known.parent else id_tag
