"""Sessions for tests: a charge point's messages, and tariffs to price them by."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.billing.ledger import Ledger
from gateway.domain.event_values import Reading, Sample
from gateway.domain.events import (
    ChargePointBooted,
    ConnectorStatusChanged,
    DataTransferred,
    Event,
    MeterSampled,
    TransactionClosed,
    TransactionProgressed,
    TransactionSettled,
    TransactionStarted,
    TransactionStopped,
)
from gateway.tariffs.file import read_tariffs
from gateway.tariffs.tariff import TariffBook

START = datetime(2026, 1, 14, 15, 30, tzinfo=UTC)  # 16:30 in Amsterdam
ZONE = "Europe/Amsterdam"


def at(minutes: float) -> datetime:
    """So many minutes after the session's start."""
    return START + timedelta(minutes=minutes)


def component(kind: str, price: str, vat: str | None = None, step: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "price": Decimal(price), "step_size": step}
    return found if vat is None else found | {"vat": Decimal(vat)}


def element(*components: dict[str, Any], **restrictions: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"price_components": list(components)}
    return found | {"restrictions": restrictions} if restrictions else found


def tariff(*elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "T", "currency": "EUR", "elements": list(elements)} | more


PER_KWH = tariff(element(component("ENERGY", "0.30")))
LIVE = tariff(
    element(component("FLAT", "0.50", "21")),
    element(component("ENERGY", "0.40", "21"), end_time="17:00"),
    element(component("ENERGY", "0.60", "21"), start_time="17:00"),
    element(component("PARKING_TIME", "6", "21", 60)),
)
TIME_AND_PARKING = tariff(element(component("TIME", "3"), component("PARKING_TIME", "6")))


def tariff_book(*tariffs: dict[str, Any], zone: str = ZONE, **policy: Any) -> TariffBook:
    found, faults = read_tariffs({"tariffs": list(tariffs), "policy": policy, "time_zone": zone})
    assert not [fault for fault in faults if fault.fatal], faults
    return found


PARKING = tariff_book(
    tariff(element(component("ENERGY", "0.30"), component("PARKING_TIME", "6"))),
    post_stop_parking=True,
)


class ChargePoint:
    """Words the messages of one connector's transaction."""

    def __init__(self, name: str = "CP-1", connector_id: int = 1, transaction_id: int = 1) -> None:
        self.name, self.connector_id, self.transaction_id = name, connector_id, transaction_id

    def start(
        self, meter: str | None = "1000", minutes: float = 0, **more: Any
    ) -> TransactionStarted:
        return TransactionStarted(
            charge_point_id=self.name,
            received_at=more.pop("received_at", at(minutes)),
            timestamp=more.pop("timestamp", at(minutes)),
            connector_id=self.connector_id,
            id_tag=more.pop("id_tag", "04A1"),
            meter_start=meter,
            transaction_id=self.transaction_id,
            **more,
        )

    def meter(self, minutes: float, *values: str | Sample, **more: Any) -> MeterSampled:
        reading = Reading(at(minutes), tuple(map(register, values)))
        return self.readings(minutes, reading, **more)

    def readings(self, minutes: float, *readings: Reading, **more: Any) -> MeterSampled:
        return MeterSampled(
            charge_point_id=self.name,
            received_at=more.pop("received_at", at(minutes)),
            timestamp=readings[-1].timestamp if readings else None,
            connector_id=more.pop("connector_id", self.connector_id),
            transaction_id=more.pop("transaction_id", self.transaction_id),
            readings=readings,
            **more,
        )

    def status(self, minutes: float, status: str, **more: Any) -> ConnectorStatusChanged:
        return ConnectorStatusChanged(
            charge_point_id=self.name,
            received_at=more.pop("received_at", at(minutes)),
            timestamp=more.pop("timestamp", at(minutes)),
            connector_id=self.connector_id,
            status=status,
        )

    def stop(self, minutes: float, meter: str | None, **more: Any) -> TransactionStopped:
        return TransactionStopped(
            charge_point_id=self.name,
            received_at=more.pop("received_at", at(minutes)),
            timestamp=more.pop("timestamp", at(minutes)),
            transaction_id=more.pop("transaction_id", self.transaction_id),
            meter_stop=meter,
            **more,
        )

    def boot(self, minutes: float, *, replaced: bool = False) -> ChargePointBooted:
        return ChargePointBooted(
            charge_point_id=self.name, received_at=at(minutes), vendor="V", replaced=replaced
        )

    def unplugged(self, minutes: float, *, told: float | None = None) -> DataTransferred:
        moment = at(minutes).isoformat()
        data = f'{{"transactionId": {self.transaction_id}, "timestamp": "{moment}"}}'
        return DataTransferred(
            charge_point_id=self.name,
            received_at=at(minutes if told is None else told),
            vendor_id="org.openchargealliance.costmsg",
            message_id="ConnectorUnplugged",
            data=data,
        )


CP = ChargePoint()


def register(value: str | Sample) -> Sample:
    return value if isinstance(value, Sample) else Sample(value)


def posted(prices: TariffBook, *events: Event) -> list[Event]:
    """All facts that follow from the events."""
    ledger = Ledger(prices)
    return [fact for event in events for fact in ledger.post(event)]


def receipt(prices: TariffBook, *events: Event) -> dict[str, Any]:
    """The newest receipt that follows from the events."""
    settled = [f for f in posted(prices, *events) if isinstance(f, TransactionSettled)]
    return settled[-1].receipt


def progress(facts: Iterable[Event]) -> TransactionProgressed:
    """The newest word on a session that is open."""
    return [fact for fact in facts if isinstance(fact, TransactionProgressed)][-1]


def given_up(transaction_id: int, received_at: datetime) -> TransactionClosed:
    """An operator closes a transaction that nothing stops any more."""
    return TransactionClosed(
        charge_point_id=CP.name,
        received_at=received_at,
        transaction_id=transaction_id,
        connector_id=1,
        reason="Operator",
    )


def kinds(facts: Iterable[Event]) -> list[type[Event]]:
    return [type(fact) for fact in facts]


def ticked(ledger: Ledger, minute: int) -> tuple[Event, ...]:
    """What a look at the clock tells, of all transactions that nothing was told of for long."""
    return tuple(fact for one in ledger.due(at(minute)) for fact in ledger.tick(one, at(minute)))
