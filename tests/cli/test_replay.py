"""`replay`: recorded frames in, what they cost out, and whether that was expected."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest

from gateway.cli import replay as replaying
from gateway.cli.replay import ExampleFault, main, replay
from gateway.domain.events import MeterSampled

EXAMPLES = Path(__file__).parents[1] / "data" / "billing" / "own.json"


def example(name):
    document = json.loads(EXAMPLES.read_text(), parse_float=Decimal)
    return next(vector for vector in document["vectors"] if vector["id"] == name)


@pytest.fixture
def run(tmp_path):
    """Replays a document from a file: exit status, lines of stdout as JSON, text of stderr."""

    def replayed(document):
        path = tmp_path / "example.json"
        text = document if isinstance(document, str) else json.dumps(document, default=float)
        path.write_text(text)
        out, err = StringIO(), StringIO()
        status = main([str(path)], out=out, err=err)
        return status, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()

    return replayed


def test_all_examples_of_a_file_come_out_as_expected():
    out, err = StringIO(), StringIO()
    assert main([str(EXAMPLES)], out=out, err=err) == 0
    assert err.getvalue() == ""
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == 61
    assert lines[0]["sessions"][0]["total_incl_vat"] == "4.80"


def test_a_bare_example_needs_neither_policy_nor_expectation(run):
    bare = {name: example("PRC-25")[name] for name in ("tz", "tariff", "events")}
    status, (found,), err = run(bare)
    assert (status, err, found["id"]) == (0, "", None)
    assert found["sessions"][0]["total_incl_vat"] == "7.38"
    assert "live" not in found
    assert "orphan_messages" not in found


def test_a_difference_is_reported_and_fails(run):
    wrong = example("MTR-01")
    wrong["expected"]["sessions"][0]["total_incl_vat"] = "4.81"
    status, (found,), err = run(wrong)
    assert status == 1
    assert found["sessions"][0]["total_incl_vat"] == "4.80"
    assert 'sessions[0].total_incl_vat is "4.80", expected "4.81"' in err


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["sessions"][0]["lines"].pop(),
        lambda e: e["sessions"][0].pop("flags"),
        lambda e: e["sessions"][0].update(surprise=1),
        lambda e: e["sessions"].append({}),
        lambda e: e["sessions"].append(7),
        lambda e: e.update(sessions=7),
        lambda e: e["sessions"][0].update(lines=[7, 8]),
        lambda e: e["sessions"][0].update(energy_wh="much"),
        lambda e: e.update(orphan_messages=["MeterValues"]),
        lambda e: e.update(live=[{"at": "2026-01-14T15:30:00Z"}]),
        lambda e: e["sessions"][0]["flags"].append("needs_review"),
        lambda e: e["sessions"][0].update(transaction_id=True),
    ],
)
def test_anything_else_than_expected_fails(run, change):
    wrong = example("MTR-01")
    change(wrong["expected"])
    status, _, err = run(wrong)
    assert status == 1
    assert err.startswith(str(err.split(":")[0]))
    assert "MTR-01" in err


def test_neither_order_nor_spelling_of_numbers_makes_a_difference(run):
    same = example("MTR-01")
    (session,) = same["expected"]["sessions"]
    session["lines"].reverse()
    session["energy_wh"] = "10000.0"
    session["flags"] = []
    assert run(same)[0] == 0


def test_two_files_are_replayed_one_after_the_other(tmp_path):
    for name in ("MTR-01", "MTR-03"):
        (tmp_path / name).write_text(json.dumps(example(name), default=float))
    out = StringIO()
    paths = [str(tmp_path / name) for name in ("MTR-01", "MTR-03")]
    assert main(paths, out=out, err=StringIO()) == 0
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == ["MTR-01", "MTR-03"]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "7",
        '{"vectors": 7}',
        '{"vectors": [7]}',
        '{"default_policy": 7, "vectors": []}',
        '{"events": 7}',
        '{"events": [7]}',
        '{"events": [{"at": "2026-01-01T00:00:00Z", "frame": []}]}',
        '{"events": [{"at": "noon", "frame": [2, "1", "Heartbeat", {}]}]}',
        '{"live_at": ["noon"], "events": []}',
        '{"policy": 7, "events": []}',
        '{"policy": {"nonsense": 1}, "events": []}',
        '{"tariff": {"id": "T"}, "tz": "Europe/Amsterdam", "events": []}',
        '{"tariff": {"id": "T"}, "events": []}',
        '{"price": NaN}',
        '{"expected": 7, "events": []}',
    ],
)
def test_a_malformed_file_is_reported_in_one_line(run, document):
    status, _, err = run(document)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "example.json: " in err


def test_an_example_that_cannot_be_replayed_hides_none_of_the_others(run):
    reserved = {
        "id": "R",
        "currency": "EUR",
        "min_price": {"excl_vat": 1},
        "elements": [
            {
                "price_components": [{"type": "FLAT", "price": 5}],
                "restrictions": {"reservation": "RESERVATION"},
            }
        ],
    }
    vectors = [
        example("MTR-01"),
        example("MTR-01") | {"id": "ODD", "tariff": {"id": "T"}},
        7,
        {"events": 7},
        example("MTR-01") | {"id": "RES", "tariff": reserved, "expected": {}},
        example("MTR-01") | {"id": "BAD", "expected": 7},
        example("MTR-03"),
    ]
    status, found, err = run({"vectors": vectors})
    assert status == 2
    assert [one["id"] for one in found] == [
        "MTR-01", "ODD", None, None, "RES", "BAD", "MTR-03",
    ]  # fmt: skip
    assert ["error" in one for one in found] == [False, True, True, True, False, False, False]
    (session,) = found[4]["sessions"]
    assert (session["total_incl_vat"], session["flags"]) == (None, ["needs_review", "no_tariff"])
    printed = [line.partition(": ")[2] for line in err.splitlines()]
    assert printed[0].startswith("ODD: tariffs[0].currency: is missing")
    assert printed[1] == "vectors[2]: an example must be an object"
    assert printed[2] == "vectors[3]: events must be a list"
    assert "BAD: expected must be an object" in printed


def test_a_session_that_cannot_be_priced_hides_none_of_the_others(run, monkeypatch):
    priced = replaying.settle

    def settle(session):
        if session.opening.meter_start == 7 * 10**9:
            raise IndexError("a bug of ours")
        return priced(session)

    monkeypatch.setattr(replaying, "settle", settle)
    doubled = example("MTR-01")
    again = json.loads(json.dumps(doubled["events"], default=float))
    for item in again:
        payload = item["frame"][-1]
        payload.update({k: v for k, v in {"connectorId": 2, "meterStart": 7}.items()
                        if k in payload})  # fmt: skip
        if "transactionId" in payload:
            payload["transactionId"] = 2002
        item["frame"][1] += "-2"
    status, (found,), err = run(doubled | {"events": doubled["events"] + again})
    assert status == 2
    assert [session["transaction_id"] for session in found["sessions"]] == [1001]
    assert found["errors"] == ["transaction 2002 cannot be priced: IndexError('a bug of ours')"]
    assert "transaction 2002 cannot be priced" in err


def test_an_event_that_cannot_be_accounted_for_hides_none_of_the_others(run, monkeypatch):
    post = replaying.Ledger.post

    def posted(ledger, event):
        if isinstance(event, MeterSampled):
            raise IndexError("a bug of ours")
        return post(ledger, event)

    monkeypatch.setattr(replaying.Ledger, "post", posted)
    status, (found,), err = run(example("MTR-01"))
    assert status == 2
    assert [session["energy_wh"] for session in found["sessions"]] == ["10000"]
    assert "MeterSampled not accounted for" in err


def test_a_file_that_cannot_be_read_does_not_hide_the_next(tmp_path):
    (tmp_path / "bad").write_text("[" * 100_000)
    (tmp_path / "good").write_text(json.dumps(example("MTR-01"), default=float))
    out, err = StringIO(), StringIO()
    paths = [str(tmp_path / name) for name in ("bad", "none", "good")]
    assert main(paths, out=out, err=err) == 2
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == ["MTR-01"]
    assert len(err.getvalue().splitlines()) == 2


def test_a_missing_file_is_reported_in_one_line(tmp_path):
    err = StringIO()
    assert main([str(tmp_path / "none.json")], out=StringIO(), err=err) == 2
    assert len(err.getvalue().splitlines()) == 1


def test_replay_itself_raises_what_is_wrong():
    with pytest.raises(ExampleFault, match="events must be a list"):
        replay({"events": {}})


def test_frames_that_are_no_calls_are_passed_over():
    frames = [[3, "x", {}], [4, "x", "GenericError", "", {}], [2, "x"], [2, "x", "Heartbeat", {}]]
    events = [{"at": "2026-01-14T15:30:00Z", "dir": "CP>CS", "frame": frame} for frame in frames]
    assert replay({"events": events}) == {"id": None, "sessions": []}


def test_a_start_without_an_answer_is_numbered():
    events = [e for e in example("MTR-01")["events"] if e["dir"] == "CP>CS"]
    events[-1]["frame"][3]["transactionId"] = 1
    for item in events[1:-1]:
        item["frame"][3]["transactionId"] = 1
    found = replay({"events": events, "tariff": example("MTR-01")["tariff"], "tz": "UTC"})
    assert found["sessions"][0]["transaction_id"] == 1
    assert found["sessions"][0]["energy_wh"] == "10000"


def test_an_example_without_a_tariff_has_energy_and_no_price():
    free = {name: example("MTR-01")[name] for name in ("tz", "events")}
    (session,) = replay(free | {"live_at": ["2026-01-14T16:00:00Z"]})["sessions"]
    assert session["energy_wh"] == "10000"
    assert session["total_incl_vat"] is session["currency"] is None
    assert session["lines"] == []


def test_live_before_any_session_has_no_figures():
    early = example("PRC-25") | {"live_at": ["2026-01-14T15:00:00Z"]}
    assert replay(early)["live"] == [{"at": "2026-01-14T15:00:00Z"}]


def test_a_stop_that_comes_after_all_is_the_one_that_counts():
    """The second session has ended, too, so the first is no longer held when its stop comes."""

    def call(at, number, action, **payload):
        return {"at": at, "dir": "CP>CS", "frame": [2, number, action, payload]}

    def answer(at, number, transaction_id):
        payload = {"transactionId": transaction_id, "idTagInfo": {"status": "Accepted"}}
        return {"at": at, "dir": "CS>CP", "frame": [3, number, payload]}

    day = "2026-01-14T"
    events = [
        call(day + "10:00:00Z", "1", "StartTransaction", connectorId=1, idTag="A",
             meterStart=0, timestamp=day + "10:00:00Z"),
        answer(day + "10:00:00Z", "1", 11),
        call(day + "11:00:00Z", "2", "StartTransaction", connectorId=1, idTag="B",
             meterStart=5000, timestamp=day + "11:00:00Z"),
        answer(day + "11:00:00Z", "2", 12),
        call(day + "12:00:00Z", "3", "StopTransaction", transactionId=12, meterStop=6000,
             timestamp=day + "12:00:00Z"),
        call(day + "12:01:00Z", "4", "StopTransaction", transactionId=11, meterStop=4000,
             timestamp=day + "10:30:00Z"),
    ]  # fmt: skip
    found = replay({"events": events, "tariff": example("MTR-33")["tariff"], "tz": "UTC"})
    assert [s["energy_wh"] for s in found["sessions"]] == ["4000", "1000"]
    assert found["sessions"][0]["flags"] == ["stop_late"]
