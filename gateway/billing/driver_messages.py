"""The messages for a charge point's display: prices and costs.

The messages are those of the OCA's "OCPP & California Pricing Requirements": SetUserPrice,
RunningCost and FinalCost.  Amounts include VAT; numbers are Decimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import attrs

from ..domain.clock import iso
from ..domain.events import (
    IdTagPresented,
    TransactionOpened,
    TransactionProgressed,
    TransactionSettled,
)
from ..domain.fleet import MAX_CONNECTORS, Fleet, device_name
from ..tariffs.policy import Policy
from ..tariffs.tariff import Terms
from .ledger import Ledger
from .price_text import grace_minutes, price_in_words, receipt_in_words, round_half_up

MAX_DECIMALS = 4  # prices per hour are made of prices per minute, which have six
_OFFLINE_DELAY = timedelta(minutes=2)

Payload: TypeAlias = dict[str, Any]
CostEvent: TypeAlias = "TransactionOpened | TransactionProgressed | TransactionSettled"
DisplayEvent: TypeAlias = "IdTagPresented | CostEvent"


@attrs.frozen
class DisplayMessages:
    """Makes messages of events."""

    ledger: Ledger
    fleet: Fleet

    def message(
        self, event: DisplayEvent, now: datetime, decimals: int
    ) -> tuple[str, Payload] | None:
        """(message id, data); None where there is nothing to say.

        decimals: of costs and prices, at most four.
        """
        if isinstance(event, IdTagPresented):
            name = "SetUserPrice"
            data = user_price(event.id_tag, self._offers(event.charge_point_id, now), now)
        elif isinstance(event, TransactionSettled):
            name, data = "FinalCost", final_cost(event)
        else:
            session = self.ledger.session(event.transaction_id)
            policy = None if session is None else session.opening.terms.policy
            name, data = "RunningCost", running_cost(event, policy, decimals)
        return None if data is None else (name, data)

    def _offers(self, charge_point_id: str, at: datetime) -> dict[int, Terms]:
        """By connector that a driver may mean who presents a tag: with a plug in it, or else
        free.
        """
        connectors = {
            connector: state
            for connector in range(1, MAX_CONNECTORS + 1)
            if (state := self.fleet.state_of(device_name(charge_point_id, connector)))
        }
        plugged = [n for n, state in connectors.items() if state.get("status") == "Preparing"]
        free = [n for n, state in connectors.items() if state.get("tx") is None]
        candidates = (plugged or free) if connectors else [1]
        return {n: self.ledger.tariff_book.terms_for(charge_point_id, n, at) for n in candidates}


def user_price(id_tag: str, offers: Mapping[int, Terms], at: datetime) -> Payload | None:
    """SetUserPrice for a session that starts at `at`; None where nothing has a price.

    offers: the terms of each connector that it may start on.
    """
    texts = {connector: price_in_words(terms, at) for connector, terms in offers.items()}
    different = set(texts.values())
    if len(different) == 1:
        text = different.pop()
    else:
        priced = ((connector, text) for connector, text in texts.items() if text)
        text = "; ".join(f"connector {connector}: {text}" for connector, text in priced)
    return {"idToken": id_tag, "priceText": text} if text else None


def running_cost(
    event: TransactionOpened | TransactionProgressed, policy: Policy | None, decimals: int
) -> Payload | None:
    """None where the transaction has no price, or no register is known.

    policy: the session's; None where it is not known any more.
    """
    so_far = event.progress
    if so_far.cost_total is None or so_far.meter_wh is None:
        return None
    message: Payload = {
        "transactionId": event.transaction_id,
        "timestamp": iso(so_far.as_of),
        "meterValue": int(so_far.meter_wh),
        "cost": round_half_up(so_far.cost_total, decimals),
        "state": "Idle" if so_far.idle else "Charging",
        "chargingPrice": {  # what the tariff has no price for costs nothing
            "kWhPrice": round_half_up(so_far.price_kwh or Decimal(0), decimals),
            "hourPrice": round_half_up((so_far.price_min or 0) * Decimal(60), decimals),
            "flatFee": round_half_up(so_far.cost_fixed or Decimal(0), decimals),
        },
    }
    if so_far.price_idle_min is not None:
        grace = 0 if policy is None else grace_minutes(policy)
        message["idlePrice"] = {
            **({"graceMinutes": grace} if grace else {}),
            "hourPrice": round_half_up(so_far.price_idle_min * 60, decimals),
        }
    return message


def final_cost(event: TransactionSettled) -> Payload | None:
    """None where the transaction has no price."""
    cost = event.progress.cost_total
    if cost is None:
        return None
    return {
        "transactionId": event.transaction_id,
        "cost": cost,
        "priceText": receipt_in_words(event.receipt),
    }


def happened_offline(event: CostEvent, start_received_at: datetime) -> bool:
    """Whether the charge point was offline for all that the event covers.

    So it is where start and event are both stamped more than two minutes before receipt, and
    were received in less than half the time that they took to happen; without the second, a
    charge point whose clock is slow would be taken for one that is never online.
    start_received_at: when StartTransaction was received.
    """
    as_of = event.progress.as_of
    late = min(start_received_at - event.started_at, event.received_at - as_of)
    return (
        late > _OFFLINE_DELAY
        and (event.received_at - start_received_at) * 2 <= as_of - event.started_at
    )
