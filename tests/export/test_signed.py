"""Signed values as a file for the S.A.F.E. Transparenzsoftware."""

from __future__ import annotations

import base64
import json
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.export.signed import transparency_xml
from gateway.export.signed_records import FORMATS, records

from .corpus import plain_receipt, signed_receipt

OCMF = 'OCMF|{"FV" : "1.0","RV":1.20,"ID":"<&>\u00e9"}|{"SD":"3045"}'
ALFEN = "AP;0;3;AJ2J7LYMGCIWT4AHUJPPFIIVB3FGRV2JQ2HVZG2I;AIHPIEOY2IDP;ORSXG5BAONUWO3Q=;"
SML = bytes.fromhex("1b1b1b1b01010101760238620062007265000001017601023002330b0901454d48")
RECEIPT = plain_receipt()
ISA = bytes.fromhex("1b1b1b1b010101017605000000 0b09014953410000000001")
KEY = "3059301306072A8648CE3D020106082A8648CE3D030107034200043AEEB45C"


def b64(octets: bytes | str) -> str:
    return base64.b64encode(octets.encode() if isinstance(octets, str) else octets).decode()


def wrapped(data: str, method: str = "", key: str = "", name: str = "signedMeterData") -> str:
    return json.dumps(
        {name: data, "signingMethod": "", "encodingMethod": method, "publicKey": key}, indent=1
    )


def values(of, **how):
    """(attributes of the value, signedData, publicKey) of each value in the file."""
    document = transparency_xml(of, **how)
    assert document is not None
    root = ElementTree.fromstring(document.encode())
    assert root.tag == "values"
    return [(value.attrib, value.find("signedData"), value.find("publicKey")) for value in root]


def only(value: str, **how):
    ((_, data, key),) = values(signed_receipt(value), **how)
    return (
        data.get("format"),
        data.get("encoding"),
        data.text,
        None if key is None else (key.get("encoding"), key.text),
    )


def test_nothing_signed_gives_no_file():
    assert transparency_xml(plain_receipt()) is None


def test_the_file_is_what_the_transparency_software_documents():
    of = signed_receipt("OCMF|{}|{}", "OCMF|{}|{1}")
    assert transparency_xml(of, public_key="3059AF") == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<values>\n"
        '  <value transactionId="1" context="Transaction.Begin">\n'
        '    <signedData format="OCMF" encoding="plain">OCMF|{}|{}</signedData>\n'
        '    <publicKey encoding="hex">3059AF</publicKey>\n'
        "  </value>\n"
        '  <value transactionId="1" context="Transaction.End">\n'
        '    <signedData format="OCMF" encoding="plain">OCMF|{}|{1}</signedData>\n'
        '    <publicKey encoding="hex">3059AF</publicKey>\n'
        "  </value>\n"
        "</values>\n"
    )


@pytest.mark.parametrize(
    ("value", "format_", "encoding", "text"),
    [
        (OCMF, "OCMF", "plain", OCMF),
        (wrapped(b64(OCMF), "OCMF"), "OCMF", "plain", OCMF),
        (wrapped(b64(OCMF), name="signedMeterValue"), "OCMF", "plain", OCMF),
        (wrapped(OCMF), "OCMF", "plain", OCMF),
        (wrapped(OCMF.encode().hex()), "OCMF", "plain", OCMF),
        (b64(OCMF), "OCMF", "plain", OCMF),
        (ALFEN, "ALFEN", "plain", ALFEN),
        (wrapped(b64(ALFEN), "Alfen Eichrecht"), "ALFEN", "plain", ALFEN),
        (SML.hex(), "EDL_40_P", "hex", SML.hex()),
        (SML.hex(" ").upper(), "EDL_40_P", "hex", SML.hex(" ").upper()),
        (b64(SML), "EDL_40_P", "base64", b64(SML)),
        (wrapped(b64(SML), "EDL"), "EDL_40_P", "base64", b64(SML)),
        (ISA.hex(), "ISA_EDL_40_P", "hex", ISA.hex()),
        (wrapped(b64(b"\1" * 40), "EDL40 Mennekes"), "EDL_40_MENNEKES", "base64", b64(b"\1" * 40)),
        ("0A" * 40, "UNKNOWN", "hex", "0A" * 40),
        (b64(b"\xff" * 40), "UNKNOWN", "base64", b64(b"\xff" * 40)),
        ("unheard of", "UNKNOWN", "plain", "unheard of"),
        ("{not json", "UNKNOWN", "plain", "{not json"),
        ('{"signedMeterData":5}', "UNKNOWN", "plain", '{"signedMeterData":5}'),
        ("[" * 5000, "UNKNOWN", "plain", "[" * 5000),
        ('{"a":' * 100_000, "UNKNOWN", "plain", '{"a":' * 100_000),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_signed_is_found_in_its_wrapping(value, format_, encoding, text):
    assert only(value)[:3] == (format_, encoding, text)


def test_what_is_signed_stays_byte_for_byte():
    """Blanks, line ends and characters that XML must escape."""
    value = ' OCMF|{"A":"\r\n\t<&>\'\u20ac ]]>"}|{} \n'
    assert only(value)[2] == value


@pytest.mark.parametrize("character", ["\0", "\x1f", "\ufffe", "\ud800"])
def test_what_xml_cannot_hold_is_sent_in_base64(character):
    value = f"OCMF|{character}|"
    of = RECEIPT | {"signed": [{"context": character, "value": value}]}
    ((about, data, _),) = values(of)
    assert data.attrib == {"format": "OCMF", "encoding": "base64"}
    assert base64.b64decode(data.text) == value.encode("utf-8", "surrogatepass")
    assert about["context"] == "?"


@given(st.text(min_size=1))
@settings(deadline=None, max_examples=200)
def test_no_value_breaks_the_file_or_is_lost(value):
    of = RECEIPT | {"signed": [{"context": value, "value": value}]}
    ((about, data, _),) = values(of)
    assert about["transactionId"] == "1"
    assert data.get("format") in FORMATS
    (record,) = records(of)
    text = data.text or ""
    if data.get("encoding") == "plain":
        assert text.encode() == record.octets
    elif record.encoding == "plain":
        assert base64.b64decode(text) == record.octets


def test_all_values_are_there_in_their_order_and_context():
    contexts = ("Transaction.Begin", "Sample.Clock", None, "Transaction.End")
    of = signed_receipt("OCMF|1|", "OCMF|2|", "OCMF|3|", "OCMF|4|", contexts=contexts)
    found = values(of)
    assert [data.text for _, data, _ in found] == ["OCMF|1|", "OCMF|2|", "OCMF|3|", "OCMF|4|"]
    assert [about["context"] for about, _, _ in found] == [
        "Transaction.Begin",
        "Sample.Clock",
        "Sample.Periodic",
        "Transaction.End",
    ]
    assert {about["transactionId"] for about, _, _ in found} == {"1"}


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "exported"),
    [
        ("", None),
        ("oca:base16:asn1:" + KEY, ("hex", KEY)),
        (b64("oca:base16:asn1:" + KEY), ("hex", KEY)),
        (KEY, ("hex", KEY)),
        (f" {KEY}\n", ("hex", KEY)),
        (b64(bytes.fromhex(KEY)), ("base64", b64(bytes.fromhex(KEY)))),
        ("no key at all!", None),
    ],
)
def test_a_key_is_reported_as_it_came(key, exported):
    assert only(wrapped(b64(OCMF), "OCMF", key))[3] == exported


def test_a_key_that_is_no_text_is_none():
    value = json.dumps({"signedMeterData": b64(OCMF), "publicKey": 5})
    assert only(value)[3] is None


def test_alfen_brings_its_key_along():
    assert only(ALFEN)[3] == ("base32", "AJ2J7LYMGCIWT4AHUJPPFIIVB3FGRV2JQ2HVZG2I")
    assert only("AP;0;3;1;2;3;")[3] is None
    assert only("AP;0")[3] is None


def test_a_key_that_comes_once_is_that_of_the_whole_session():
    of = signed_receipt(wrapped(b64(OCMF), key=KEY), wrapped(b64(OCMF + " ")))
    assert [key.text for _, _, key in values(of, public_key="FF")] == [KEY, KEY]


def test_with_two_keys_in_one_session_none_is_guessed():
    values_ = (wrapped(b64("OCMF|1|"), key=KEY), wrapped("OCMF|2|", key="AFFE"), "OCMF|3|")
    keys = [None if key is None else key.text for _, _, key in values(signed_receipt(*values_))]
    assert keys == [KEY, "AFFE", None]


def test_a_key_known_out_of_band_serves_where_none_came():
    assert only(OCMF, public_key=KEY)[3] == ("hex", KEY)


# --- XML from the charge point ------------------------------------------------------------------


def test_xml_of_the_charge_point_is_taken_apart():
    value = (
        '<?xml version="1.0" encoding="UTF-8"?><values>'
        '<value context="Transaction.Begin">'
        f'<signedData format="Alfen">{ALFEN}</signedData></value>'
        '<value transactionId="x"><signedData format="edl_40_p" encoding="hex">'
        f'{SML.hex()}</signedData><publicKey encoding="hex">{KEY}</publicKey></value>'
        f"<value><signedData>OCMF|&lt;|</signedData><publicKey>{KEY}</publicKey></value>"
        "</values>"
    )
    begin, second, third = values(signed_receipt(value, contexts=("Transaction.End",)))
    assert begin[0] == {"transactionId": "1", "context": "Transaction.Begin"}
    assert (begin[1].attrib, begin[1].text) == ({"format": "ALFEN", "encoding": "plain"}, ALFEN)
    assert begin[2].get("encoding") == "base32"
    assert second[0] == {"transactionId": "1", "context": "Transaction.End"}
    assert second[1].attrib == {"format": "EDL_40_P", "encoding": "hex"}
    assert (second[1].text, second[2].text) == (SML.hex(), KEY)
    assert third[1].attrib == {"format": "OCMF", "encoding": "plain"}
    assert (third[1].text, third[2].text) == ("OCMF|<|", KEY)


def test_a_single_value_element_is_taken_apart_too():
    value = f'<v:value xmlns:v="x"><v:signedData format="OCMF">{ALFEN}</v:signedData></v:value>'
    assert only(value)[:3] == ("OCMF", "plain", ALFEN)


@pytest.mark.parametrize(
    ("value", "format_"),
    [
        ("<signedMeterValue><publicKey/></signedMeterValue>", "EDL_40_SIG"),
        ("<values><value><encodedData>x</encodedData></value></values>", "UNKNOWN"),
        ("<values/>", "UNKNOWN"),
        ("<Billing/>", "UNKNOWN"),
        ("<broken", "UNKNOWN"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><values><value/></values>', "UNKNOWN"),
    ],
)
def test_other_xml_is_handed_on_whole(value, format_):
    assert only(value)[:3] == (format_, "plain", value)
    assert only(wrapped(b64(value)))[:3] == (format_, "plain", value)
