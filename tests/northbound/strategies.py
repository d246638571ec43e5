"""Events of every kind, as hostile as a charge point can make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from gateway.domain import events
from gateway.domain.event_values import Progress, Reading, Sample
from gateway.domain.measurands import CURRENTS

RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

_received = st.integers(0, 10**9).map(lambda ms: RECEIVED + timedelta(milliseconds=ms))
_stamps = st.one_of(
    st.none(),
    st.datetimes(datetime(1970, 1, 2), datetime(2099, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
_words = st.one_of(
    st.sampled_from(
        ["Available", "Charging", "0123", "-1.50", ".5", "5.", "-", "1e3", "٣٤", "NaN", "Infinity"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
_ids = st.sampled_from(["CP-1", "CP 2", "7", "a=b@c*d.e:f_g"])
_connectors = st.integers(-2, 300)
_whole = st.integers(0, 2**31 - 1)
_decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12)
_wild = st.one_of(_decimals, st.decimals().filter(lambda value: not value.is_snan()))
_maybe = st.one_of(st.none(), _wild)

_samples = st.builds(
    Sample,
    value=st.one_of(
        st.sampled_from(
            ["0", "230.1", "-3.5", "1e3", "", "x", "12345678901234567890", "0.0000001"]
        ),
        st.decimals(-(10**9), 10**9, places=9).map(str),
    ),
    context=st.sampled_from([None, "Sample.Periodic", "Transaction.Begin", "Transaction.End", "?"]),
    format=st.sampled_from([None, "Raw", "SignedData"]),
    measurand=st.sampled_from(
        [
            None,
            *(f"Energy.Active.{way}.Register" for way in ("Import", "Export")),
            "Power.Active.Import",
            "Power.Offered",
            "Current.Import",
            "Current.Offered",
            "Voltage",
            "SoC",
            "Temperature",
            "Frequency",
            "RPM",
        ]
    ),
    phase=st.sampled_from([None, "L1", "L2", "L3", "N", "L1-N", "L2-N", "L1-L2", "L3-L1", "?"]),
    location=st.sampled_from([None, "Outlet", "EV", "Body"]),
    unit=st.sampled_from([None, "Wh", "kWh", "W", "kW", "A", "V", "Percent", "Celsius", "Hertz"]),
)
_readings = st.lists(
    st.builds(Reading, timestamp=_stamps, samples=st.lists(_samples, max_size=6).map(tuple)),
    max_size=4,
).map(tuple)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    money = draw(st.booleans())
    cost = {
        "currency": "EUR",
        "cost_total": draw(_decimals).quantize(Decimal("0.01")),
        "cost_total_minor": draw(_whole),
    }
    return Progress(
        as_of=draw(_received),
        energy_wh=draw(_decimals),
        duration_s=draw(_whole),
        charging_s=draw(_whole),
        idle_s=draw(_whole),
        meter_wh=draw(_maybe),
        power_w=draw(_maybe),
        **(cost if money else {}),
        cost_energy=draw(_maybe) if money else None,
        cost_time=draw(_maybe) if money else None,
        price_kwh=draw(_maybe) if money else None,
        flags=tuple(draw(st.lists(st.sampled_from(["meter_reset", "007"]), max_size=2))),
    )


_about = {"charge_point_id": _ids, "received_at": _received, "timestamp": _stamps}
_seen = st.sets(st.integers(1, 256), max_size=3).map(tuple)
_tx = {**_about, "transaction_id": _whole, "connector_id": _connectors}
_began = {**_tx, "started_at": _received, "progress": progresses()}
_receipts = st.fixed_dictionaries({"receipt_id": _words, "total": _words, "lines": st.just([])})
_instants = st.integers(1_767_225_600_000, 1_775_000_000_000)
_zeros = {
    "zeros": st.sampled_from([(), ("current_a",), CURRENTS]),
    "zeros_ms": st.one_of(st.just(0), _instants),
}

OF_KIND = {
    events.ChargePointConnected: {
        **_about,
        "remote_address": _words,
        "security_profile": _whole,
        "connectors": _seen,
    },
    events.ChargePointDisconnected: {**_about, "reason": _words, "connectors": _seen},
    events.ChargePointBooted: {**_about, "vendor": _words, "serial_number": _words},
    events.HeartbeatReceived: _about,
    events.IdTagPresented: {**_about, "id_tag": _words, "status": _words},
    events.ConnectorStatusChanged: {
        **_about,
        "connector_id": _connectors,
        "status": _words,
        "error_code": _words,
        "info": _words,
        "vendor_error_code": _words,
        "new": st.booleans(),
        "first": st.booleans(),
        **_zeros,
    },
    events.StatusInferred: {
        **_about,
        "connector_id": _connectors,
        "status": _words,
        "new": st.booleans(),
        "status_ms": _instants,
    },
    events.MeterSampled: {
        **_about,
        "connector_id": _connectors,
        "readings": _readings,
        "transaction_connector_id": st.integers(0, 3),
        "stopped_ms": st.one_of(st.just(0), _instants),
        "resumed_ms": st.one_of(st.just(0), _instants),
        "of_stopped": st.booleans(),
        "nonzero_keys": st.sampled_from([(), ("meter_wh", "energy_export_wh")]),
    },
    events.TransactionStarted: {
        **_tx,
        "id_tag": _words,
        "meter_start": st.one_of(st.none(), _words),
    },
    events.TransactionStopped: {
        **_about,
        "transaction_id": st.one_of(st.none(), _whole),
        "meter_stop": st.one_of(st.none(), _words),
        "readings": _readings,
        "connector_id": _connectors,
        "stopped_id": st.one_of(st.none(), _whole),
        **_zeros,
    },
    events.RemoteStopRequested: {
        **_about,
        "transaction_id": _whole,
        "connector_id": _connectors,
        "withdrawn": st.booleans(),
    },
    events.DataTransferred: {**_about, "vendor_id": _words},
    events.FirmwareStatusChanged: {**_about, "status": _words},
    events.DiagnosticsStatusChanged: {**_about, "status": _words},
    events.SecurityEventReported: {
        **_about,
        "type": _words,
        "tech_info": st.one_of(st.none(), _words),
    },
    events.FramesRejected: {**_about, "total": _whole, "code": _words, "why": _words},
    events.SchemaDeviated: {**_about, "total": _whole, "action": _words, "what": _words},
    events.CommandCarriedOut: {
        **_about,
        "method": _words,
        "result": _words,
        "connector_id": st.integers(1, 256),
        "tx_active": st.one_of(st.none(), st.booleans()),
        "tx_active_ms": st.integers(1_767_225_600_000, 1_775_000_000_000),
    },
    events.TransactionOpened: {
        **_began,
        "id_tag": _words,
        "tariff": st.one_of(st.none(), st.fixed_dictionaries({"id": _words})),
    },
    events.TransactionProgressed: _began,
    events.TransactionSettled: {
        **_began,
        "receipt": _receipts,
        "version": st.integers(1, 3),
        **_zeros,
        "published_ms": st.integers(1_767_225_600_000, 1_775_000_000_000),
    },
    events.TransactionClosed: {
        **_about,
        "transaction_id": _whole,
        "connector_id": _whole,
        "reason": _words,
    },
    events.MessageOrphaned: {
        **_about,
        "message": _words,
        "transaction_id": st.one_of(st.none(), _whole),
        "content": _words,
    },
    events.NotAccounted: {**_about, "seq": _whole, "why": _words},
}

any_event = st.one_of([st.builds(kind, **fields) for kind, fields in OF_KIND.items()])
