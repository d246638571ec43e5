"""Commands of operators, from ThingsBoard's RPC to the charge point and back."""

from __future__ import annotations

import json

import pytest
import trio

from .operators import plugged
from .raw_websocket import TEXT, frame, opened


@pytest.mark.parametrize(
    ("device", "method"),
    [
        ("CP-1", "Heartbeat"),
        ("CP-1", "StartTransaction"),
        ("CP-1", "reset"),
        ("CP-1", "remoteStart"),
        ("CP-1", ""),
        ("CP-1", "x" * 10_000),
        ("CP-1/1", "Reset"),
        ("CP-1/1", "RemoteStart"),
    ],
)
async def test_a_method_that_a_device_does_not_have_is_unknown(gateway, operator, device, method):
    async with plugged(gateway) as charger:
        operator.send(device, method, {})
        await operator.responses()
        assert operator.codes == ["UnknownMethod"]
        assert charger.calls.statistics().current_buffer_used == 0


@pytest.mark.parametrize(
    ("device", "method", "params"),
    [
        ("CP-1", "Reset", {"type": "Hard"}),
        ("CP-1/1", "remoteStart", {"idTag": "A"}),
        ("CP-1/1", "remoteStop", None),
        ("CP-1/1", "unlock", None),
        ("CP-1/1", "setAvailable", True),
    ],
)
async def test_who_is_away_is_not_connected(gateway, operator, device, method, params):
    """HC-105: at once."""
    async with plugged(gateway):
        pass
    await gateway.settled()
    before = trio.current_time()
    operator.send(device, method, params)
    await operator.responses()
    assert operator.codes == ["NotConnected"]
    assert operator.times[0] - before < 1


# --- one call at a time -------------------------------------------------------------------------


async def test_one_call_at_a_time_and_first_come_first_served(gateway, operator):
    """HC-62, OCPP-J 4.1.1."""
    keys = [f"key {number}" for number in range(3)]
    async with plugged(gateway) as charger:
        for key in keys:
            operator.send("CP-1", "GetConfiguration", {"key": [key]})
            await gateway.settled()
        ids = []
        for key in keys:
            unique_id, _, payload = await charger.next_call()
            ids.append(unique_id)
            assert payload == {"key": [key]}
            await trio.sleep(5)
            assert charger.calls.statistics().current_buffer_used == 0
            await charger.reply(unique_id, unknownKey=[key])
        assert await operator.responses(3) == [{"unknownKey": [key]} for key in keys]
        assert len(set(ids)) == 3


async def test_several_charge_points_are_called_at_once(gateway, operator):
    """HC-63."""
    async with plugged(gateway, "A") as one, plugged(gateway, "B") as two:
        operator.send("A", "ClearCache")
        operator.send("B", "ClearCache")
        await one.next_call()
        unique_id, _, _ = await two.next_call()
        await two.reply(unique_id, status="Accepted")
        assert await operator.responses() == [{"status": "Accepted"}]


async def test_a_charge_point_may_ask_before_it_answers(gateway, operator):
    """HC-64, HC-70: it authorises a remote start, begins it, and answers then."""
    async with plugged(gateway) as charger:
        operator.send("CP-1/1", "remoteStart", {"idTag": "TAG"})
        unique_id, _, payload = await charger.next_call()
        assert payload == {"connectorId": 1, "idTag": "TAG"}
        before = trio.current_time()
        await charger.ask("Authorize", idTag="TAG")
        tx = await charger.start(0)
        assert trio.current_time() == before
        await trio.sleep(2)
        await charger.reply(unique_id, status="Accepted")
        assert await operator.responses() == [{"status": "Accepted", "transactionId": tx}]


async def test_a_call_that_is_not_answered_times_out_and_the_next_is_sent(gateway, operator):
    """HC-66, HC-67, HC-106: its late answer is nobody's, least of all the next call's.

    Nor is the call made again: a Reset that was only slow would come twice.
    """
    async with plugged(gateway) as charger:
        before = trio.current_time()
        operator.send("CP-1", "ClearCache")
        late, _, _ = await charger.next_call()
        operator.send("CP-1", "GetLocalListVersion")
        await operator.responses()
        assert operator.codes == ["Timeout"]
        assert "ClearCache" in operator.received[0]["error"]["message"]
        assert 30 <= operator.times[0] - before < 31
        unique_id, action, _ = await charger.next_call()
        assert action == "GetLocalListVersion"
        await charger.reply(late, status="Accepted")
        await charger.reply(unique_id, listVersion=5)
        assert (await operator.responses(2))[1] == {"listVersion": 5}
        assert gateway.running.connections.rejected_frames["UnaskedAnswer"] == 1


async def test_the_time_to_answer_counts_from_the_sending(gateway, operator):
    """Who waited 25 s for an earlier call still gives the charge point its 30."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        first, _, _ = await charger.next_call()
        operator.send("CP-1", "GetLocalListVersion")
        await trio.sleep(25)
        await charger.reply(first, status="Accepted")
        second, _, _ = await charger.next_call()
        await trio.sleep(25)
        await charger.reply(second, listVersion=1)
        assert (await operator.responses(2))[1] == {"listVersion": 1}


async def test_an_answer_that_comes_after_all_is_over_is_counted(gateway, operator):
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await operator.responses()
        await charger.reply(unique_id, status="Accepted")
        await charger.ask("Heartbeat")
        assert gateway.running.connections.rejected_frames["UnaskedAnswer"] == 1


async def test_of_two_answers_in_one_breath_the_first_counts(gateway, operator):
    """HC-45: twenty times, for which task runs first is Trio's to choose."""
    async with opened(gateway, "CP-1") as peer:
        for number in range(20):
            operator.send("CP-1", "GetConfiguration", {"key": [str(number)]})
            unique_id = (await peer.message())[1]
            await peer.send(
                b"".join(
                    frame(TEXT, json.dumps([3, unique_id, {"unknownKey": [key]}]).encode())
                    for key in ("first", "second")
                )
            )
            answers = await operator.responses(number + 1)
            assert answers[number] == {"unknownKey": ["first"]}


async def test_a_second_answer_is_ignored(gateway, operator):
    """HC-45."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, status="Accepted")
        await charger.reply(unique_id, status="Rejected")
        await charger.send([4, unique_id, "GenericError", "", {}])
        assert await operator.responses() == [{"status": "Accepted"}]
        await charger.ask("Heartbeat")


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ([4, "?"], {"ocpp_code": "GenericError", "details": None}),
        ([4, "?", "NotSupported"], {"ocpp_code": "NotSupported", "details": None}),
        ([4, "?", "NotSupported", "no"], {"ocpp_code": "NotSupported", "message": "no"}),
        ([4, "?", "Odd", "no", {"a": 1}], {"ocpp_code": "Odd", "details": {"a": 1}}),
        ([4, "?", "Odd", "no", {"a": 1}, 6], {"ocpp_code": "Odd", "details": {"a": 1}}),
        ([4, "?", None, None, None], {"ocpp_code": "GenericError", "details": None}),
        ([4, "?", 5, ["x"], "y"], {"ocpp_code": "5", "details": "y"}),
    ],
)
async def test_a_callerror_is_told_however_many_elements_it_has(gateway, operator, frame, error):
    """HC-46; and the next call is sent."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([frame[0], unique_id, *frame[2:]])
        await operator.responses()
        told = operator.received[0]["error"]
        assert told["code"] == "CallError"
        assert {key: told[key] for key in error} == error
        assert told["message"]
        operator.send("CP-1", "ClearCache")
        await charger.next_call()


@pytest.mark.parametrize(
    "answer",
    [
        [3, {"configurationKey": {"AuthorizationKey": "s3cret"}}],
        [3, {"configurationKey": [{"key": "AuthorizationKey", "value": "s3cret", "readonly": 5}]}],
        [4, "InternalError", "AuthorizationKey: s3cret", {"AuthorizationKey": "s3cret"}],
    ],
    ids=["no key", "no bool", "an error"],
)
async def test_a_password_is_not_told_with_an_answer_that_is_wrong(gateway, operator, answer):
    """HC-114: neither as it came nor in the words about it."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "GetConfiguration")
        unique_id, _, _ = await charger.next_call()
        await charger.send([answer[0], unique_id, *answer[1:]])
        await operator.responses()
        told = operator.received[0]
        assert told["error"]["code"] == "CallError"
        assert "s3cret" not in json.dumps(told)


@pytest.mark.parametrize(
    "payload",
    [{"status": "Maybe"}, {}, [], None, "Accepted", 5, {"status": None}, {"status": ["Accepted"]}],
    ids=str,
)
async def test_an_answer_that_breaks_its_schema_is_told_as_it_came(gateway, operator, payload):
    """HC-47, HC-117."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([3, unique_id, payload])
        await operator.responses()
        told = operator.received[0]["error"]
        assert (told["code"], told["details"]) == ("CallError", payload)
        await charger.ask("Heartbeat")


async def test_an_answer_without_a_payload_is_no_answer(gateway, operator):
    async with plugged(gateway) as charger:
        operator.send("CP-1", "ClearCache")
        unique_id, _, _ = await charger.next_call()
        await charger.send([3, unique_id])
        await operator.responses()
        assert operator.codes == ["CallError"]


async def test_an_order_fails_as_soon_as_the_connection_is_lost(gateway, operator):
    """HC-68: also those that waited for their turn."""
    async with opened(gateway, "CP-1") as peer:
        for number in range(3):
            operator.send("CP-1", "GetConfiguration", {"key": [str(number)]})
        assert (await peer.message())[2] == "GetConfiguration"
        before = trio.current_time()
        await peer.stream.aclose()
        await operator.responses(3)
        assert operator.codes == ["NotConnected"] * 3
        assert max(operator.times) - before < 1


async def test_too_many_orders_for_one_charge_point_are_refused(gateway, operator):
    """HC-110: 50 at once; each is answered once."""
    async with plugged(gateway) as charger:
        for number in range(50):
            operator.send("CP-1", "GetConfiguration", {"key": [str(number)]})
        await gateway.settled()
        refused = len(operator.received)
        assert operator.codes == ["Busy"] * refused
        assert 25 <= refused <= 30
        for _ in range(50 - refused):
            unique_id, _, payload = await charger.next_call()
            await charger.reply(unique_id, unknownKey=payload["key"])
        await operator.responses(50)
        told = [answer["unknownKey"][0] for answer in operator.received if "error" not in answer]
        assert len(set(told)) == 50 - refused
        operator.send("CP-1", "ClearCache")
        await charger.next_call()


# --- what answers may hold -----------------------------------------------------------------------


async def test_a_configuration_of_two_hundred_keys_comes_without_the_password(gateway, operator):
    """HC-114: MicroOcpp tells its AuthorizationKey in clear; values may be missing."""
    keys = [{"key": f"Key{number}", "readonly": False, "value": "v"} for number in range(198)]
    secret = {"key": "authorizationKey", "readonly": False, "value": "AABBCCDD"}
    answer = {"configurationKey": [*keys, secret, {"key": "Empty", "readonly": True}]}
    async with plugged(gateway) as charger:
        operator.send("CP-1", "GetConfiguration", {"key": []})
        unique_id, _, _ = await charger.next_call()
        await charger.reply(unique_id, **answer)
        (told,) = await operator.responses()
    assert told["configurationKey"] == [
        *keys,
        {**secret, "value": "***"},
        {"key": "Empty", "readonly": True},
    ]


async def test_an_answer_that_breaks_its_schema_comes_without_the_password(gateway, operator):
    """HC-114: `readonly` is missing."""
    async with plugged(gateway) as charger:
        operator.send("CP-1", "GetConfiguration", {})
        unique_id, _, _ = await charger.next_call()
        told = [{"key": "AuthorizationKey", "value": "AABBCCDD"}, "odd", {"key": 5, "value": 6}]
        await charger.send([3, unique_id, {"configurationKey": told}])
        await operator.responses()
    assert operator.received[0]["error"]["details"] == {
        "configurationKey": [{**told[0], "value": "***"}, *told[1:]]
    }
