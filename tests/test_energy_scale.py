"""`energy_scale`: a charge point whose registers count in another unit than they say."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app import AppSettings
from gateway.billing.ledger import Ledger
from gateway.cli.main import main
from gateway.cli.replay import main as replay_files
from gateway.cli.replay import replay
from gateway.config.load import load
from gateway.config.tariffs import load_tariff_book
from gateway.domain.event_values import Sample
from gateway.domain.events import MeterSampled, TransactionSettled, TransactionStarted
from gateway.journal.codec import dump
from gateway.journal.codec import load as load_event
from gateway.southbound.handlers import HandlerSettings
from gateway.southbound.settings import SouthboundSettings
from tests.memory_journal import MemoryJournal

from .billing.builders import CP, ChargePoint, component, element, receipt, tariff, tariff_book
from .conftest import open_gateway
from .fakes import stamp

HOUR = 3600


def scaled_by(**scales):
    scales = {name: Decimal(scale) for name, scale in scales.items()}
    return AppSettings(
        southbound=SouthboundSettings(handlers=HandlerSettings(energy_scales=scales))
    )


async def samples(charger, tx, *given, connector=1):
    """Each given as (measurand, value, unit)."""
    names = ("measurand", "value", "unit")
    which = {} if tx is None else {"transactionId": tx}
    await charger.ask(
        "MeterValues",
        connectorId=connector,
        meterValue=[
            {
                "timestamp": stamp(),
                "sampledValue": [dict(zip(names, one, strict=True)) for one in given],
            }
        ],
        **which,
    )


IMPORT, EXPORT = "Energy.Active.Import.Register", "Energy.Active.Export.Register"


async def test_kwh_that_are_called_wh_are_billed_and_reported_as_what_they_are():
    async with open_gateway(settings=scaled_by(CP=1000)) as gateway:
        async with gateway.charger("CP") as charger:
            await samples(charger, None, (IMPORT, "100", "Wh"), connector=1)
            await gateway.settled()
            assert gateway.thingsboard.latest("CP/1")["meter_wh"] == 100_000
            tx = await charger.start(meter_wh=100)
            await trio.sleep(HOUR / 2)
            await samples(
                charger, tx, (IMPORT, "105.5", "Wh"), (EXPORT, "2", "Wh"),
                ("Power.Active.Import", "11000", "W"), ("Current.Import", "16", "A"),
            )  # fmt: skip
            await gateway.settled()
            live = gateway.thingsboard.latest("CP/1")
            await trio.sleep(HOUR / 2)
            await charger.stop(tx, meter_wh=110)
            await gateway.settled()
        other = 7
        async with gateway.charger("CP-2") as charger:  # which the configuration does not name
            await charger.sample(None, str(other))
            await gateway.settled()
    assert (live["meter_wh"], live["energy_export_wh"]) == (105_500, 2000)
    assert (live["power_w"], live["current_a"]) == (11_000, 16)
    assert (live["tx_energy_wh"], live["cost_total"]) == (5500, 1.65)
    (settled,) = gateway.events(TransactionSettled)
    priced = settled.receipt
    assert (priced["energy_wh"], priced["total_incl_vat"], priced["energy_scale"]) == (
        "10000", "3.00", "1000",
    )  # fmt: skip
    assert (priced["meter_start_wh"], priced["meter_stop_wh"], priced["flags"]) == (
        100_000,
        110_000,
        [],
    )
    assert gateway.thingsboard.latest("CP/1")["meter_wh"] == 110_000
    assert gateway.thingsboard.latest("CP-2/1")["meter_wh"] == other
    # The journal has what the charge point wrote.
    (started,) = gateway.events(TransactionStarted)
    assert (started.meter_start, started.energy_scale) == ("100", 1000)
    (_, sampled, _) = gateway.events(MeterSampled)
    assert [one.value for reading in sampled.readings for one in reading.samples][:2] == [
        "105.5",
        "2",
    ]


@pytest.mark.parametrize(("before", "after"), [("1000", None), ("0.1", "1000"), (None, "1000")])
async def test_neither_a_restart_nor_another_factor_changes_a_session_that_is_open(before, after):
    def settings_with(scale):
        return scaled_by() if scale is None else scaled_by(CP=scale)

    factor = Decimal(before or 1)
    journal = MemoryJournal()
    async with (
        open_gateway(journal=journal, settings=settings_with(before)) as gateway,
        gateway.charger("CP") as charger,
    ):
        tx = await charger.start(meter_wh=100)
        await trio.sleep(HOUR / 2)
        await charger.sample(tx, "102")
        await gateway.settled()
    async with (
        open_gateway(journal=journal, settings=settings_with(after)) as gateway,
        gateway.charger("CP") as charger,
    ):
        await trio.sleep(60)
        await charger.sample(tx, "104")
        await gateway.settled()
        live = gateway.thingsboard.latest("CP/1")
        await trio.sleep(HOUR / 2)
        await charger.stop(tx, meter_wh=106)
        await gateway.settled()
        # The next one begins with the new factor; between two factors there is no gap.
        following = await charger.start(meter_wh=106)
        await trio.sleep(HOUR)
        await charger.sample(following, "108")
        await gateway.settled()
        assert gateway.thingsboard.latest("CP/1")["meter_wh"] == 108 * Decimal(after or 1)
        await charger.stop(following, meter_wh=108)
        await gateway.settled()
        first, second = (event.receipt for event in gateway.events(TransactionSettled))
    assert live["meter_wh"] == pytest.approx(float(104 * factor))
    assert live["tx_energy_wh"] == pytest.approx(float(4 * factor))
    assert Decimal(first["energy_wh"]) == 6 * factor
    assert first.get("energy_scale") == before
    assert Decimal(second["energy_wh"]) == 2 * Decimal(after or 1)
    assert second.get("energy_scale") == after
    assert second["meter_gap_wh"] is None


async def test_a_meter_value_of_the_whole_charge_point_follows_its_transaction():
    journal = MemoryJournal()
    async with (
        open_gateway(journal=journal, settings=scaled_by(CP=1000)) as gateway,
        gateway.charger("CP") as charger,
    ):
        tx = await charger.start(meter_wh=100, connector=2)
        await gateway.settled()
    async with (
        open_gateway(journal=journal, settings=scaled_by(CP="0.1")) as gateway,
        gateway.charger("CP") as charger,
    ):
        await charger.sample(tx, "101", connector=0)
        await charger.sample(None, "101", connector=0)
        await gateway.settled()
        assert [event.energy_scale for event in gateway.events(MeterSampled)] == [
            1000, Decimal("0.1"),
        ]  # fmt: skip


# --- in the books --------------------------------------------------------------------------------

PRICES = tariff_book(
    tariff(element(component("ENERGY", "0.37", "21")), element(component("FLAT", "0.5", "21")))
)


def receipt_of(scale, *events):
    first, *rest = events
    started = attrs.evolve(first, energy_scale=None if scale is None else Decimal(scale))
    return receipt(PRICES, started, *rest)


registers = st.decimals(0, 90_000, places=3, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(registers, min_size=2, max_size=6),
    st.sampled_from(["1000", "0.1", "0.001", "10", "0.4", "3.6"]),
    st.sampled_from(["Energy.Active.Import.Register", "Energy.Active.Import.Interval"]),
)
def test_a_scaled_register_costs_what_it_would_cost_if_it_were_written_so(values, scale, measurand):
    def events(factor):
        texts = [f"{value * factor:f}" for value in values]
        yield CP.start(texts[0])
        for minute, text in enumerate(texts[1:-1], 1):
            yield CP.meter(60 * minute, Sample(text, measurand=measurand))
        yield CP.stop(60 * len(texts), texts[-1])

    given, written = receipt_of(scale, *events(1)), receipt_of(None, *events(Decimal(scale)))
    assert given.pop("energy_scale") == scale
    assert given == written


def test_phases_transaction_data_and_the_register_at_begin_are_scaled_too():
    begin = Sample("100", context="Transaction.Begin")
    lines = [Sample(str(n), phase=f"L{n}", unit="kWh") for n in (1, 2, 3)]
    priced = receipt_of("0.5", CP.start(None), CP.meter(1, begin), CP.meter(60, *lines),
                      CP.stop(120, None))  # fmt: skip
    assert (priced["energy_wh"], priced["energy_scale"]) == ("2950", "0.5")


def test_the_gap_to_the_session_before_is_scaled():
    ledger, second = Ledger(PRICES), ChargePoint(transaction_id=2)
    facts = []
    for event in (
        attrs.evolve(CP.start("100"), energy_scale=Decimal(1000)),
        CP.stop(60, "110"),
        attrs.evolve(second.start("113", 90), energy_scale=Decimal(1000)),
        second.stop(120, "120"),
    ):
        facts += ledger.post(event)
    settled = [fact for fact in facts if isinstance(fact, TransactionSettled)]
    assert settled[-1].receipt["meter_gap_wh"] == 3000


def test_an_event_of_an_older_journal_has_none():
    kind, text = dump(CP.start("100"))
    raw = json.loads(text)
    del raw["energy_scale"]
    assert load_event(kind, json.dumps(raw)).energy_scale is None


# --- the configuration and `replay` ---------------------------------------------------------------


def configured(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(f'[storage]\nurl = "sqlite:///{tmp_path}/gateway.db"\n{text}')
    return load(path, {})[0]


def test_the_factor_reaches_who_reads_the_registers_exactly_as_it_is_written(tmp_path):
    config = configured(
        tmp_path,
        '[charge_points.A]\nenergy_scale = 0.1\n[charge_points.B]\nenergy_scale = 1.0\n'
        "[charge_points.C]\nenergy_scale = 1000\n[charge_points.D]\nmax_power_kw = 0.1\n",
    )  # fmt: skip
    scales = AppSettings.of(config).southbound.handlers.energy_scales
    assert {name: str(scale) for name, scale in scales.items()} == {"A": "0.1", "C": "1000"}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("energy_scale = 0", "must lie between 0.001 and 1000"),
        ("energy_scale = -1", "must lie between"),
        ("energy_scale = nan", "must lie between"),
        ("energy_scale = inf", "must lie between"),
        ("energy_scale = 1e4", "must lie between"),
        ("energy_scale = 0.1234567890123", "12 decimals"),
        ('energy_scale = "0.1"', "must be a number"),
        ("energy_scale = true", "must be a number"),
        ("max_power_kw = 0", "must lie between 0.1 and 10000"),
        ('quirks = ["a"]', "no such key"),
    ],
)
def test_a_factor_that_is_none_and_quirks_are_faults(line, what, tmp_path, capsys):
    (tmp_path / "gateway.toml").write_text(f"[charge_points.A]\n{line}\n")
    assert main(["check", "--config", str(tmp_path / "gateway.toml")]) == 2
    key = line.partition(" ")[0]
    assert f'gateway.toml: charge_points."A".{key}: ' in (err := capsys.readouterr().err)
    assert what in err


def test_time_zones_and_greatest_powers_hold_without_tariffs(tmp_path):
    config = configured(
        tmp_path,
        '[pricing]\ntime_zone = "Europe/Rome"\n[charge_points.A]\ntime_zone = "Asia/Tokyo"\n'
        "max_power_kw = 3.7\n",
    )
    found, faults = load_tariff_book(config)
    assert faults == []
    terms = found.terms_for("A", 1, CP.start().received_at)
    assert (terms.time_zone, terms.policy.max_power_kw) == ("Asia/Tokyo", Decimal("3.7"))
    assert found.terms_for("B", 1, CP.start().received_at).time_zone == "Europe/Rome"
    assert (terms.tariff, terms.unpriced) == (None, False)


def frames(start, stop):
    def line(at, frame):
        return {"at": at, "dir": "CP>CS", "frame": frame}

    day = "2026-01-14T"
    begun = {"connectorId": 1, "idTag": "A", "meterStart": start, "timestamp": day + "10:00:00Z"}
    over = {"transactionId": 1, "meterStop": stop, "timestamp": day + "11:00:00Z"}
    return [
        line(day + "10:00:00Z", [2, "1", "StartTransaction", begun]),
        line(day + "11:00:00Z", [2, "2", "StopTransaction", over]),
    ]


@pytest.mark.parametrize(("scale", "wh"), [(1000, "10000"), (Decimal("0.1"), "1"), (1, "10")])
def test_an_example_may_name_the_factor(scale, wh):
    (session,) = replay({"events": frames(100, 110), "energy_scale": scale})["sessions"]
    assert session["energy_wh"] == wh


def test_an_example_with_a_factor_that_is_none_is_reported(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"events": [], "energy_scale": 0}))
    err = StringIO()
    assert replay_files([str(tmp_path / "x.json")], out=StringIO(), err=err) == 2
    assert "energy_scale must lie between" in err.getvalue()
