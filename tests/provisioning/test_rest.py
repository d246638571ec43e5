"""What goes wrong with ThingsBoard's REST API is reported in words, and without a credential."""

from __future__ import annotations

import json
import ssl
from http.server import ThreadingHTTPServer
from threading import Thread

import httpx2
import pytest
import trustme

from gateway.provisioning.errors import RequestRefused, ThingsboardError, UsageError
from gateway.provisioning.installer import Options, check, install
from gateway.provisioning.login import Login, choose
from gateway.provisioning.rest import open_rest

from .fake_rest_api import API_KEY, PASSWORD, USER, FakeRestApi, Fault, handler

GOOD = Login(USER, PASSWORD)
NEVER_TOLD = (PASSWORD, API_KEY, "wr0ng")


def fails(handle, login=GOOD, url="http://thingsboard:8080"):
    """What is reported when the check is tried."""
    transport = httpx2.MockTransport(handle)
    with (
        pytest.raises(ThingsboardError) as caught,
        open_rest(url, login, transport=transport) as rest,
    ):
        list(check(rest, Options()))
    assert not any(secret in str(caught.value) for secret in NEVER_TOLD)
    return str(caught.value)


def answering(status, content=b"", **headers):
    return lambda _: httpx2.Response(status, content=content, headers=headers)


def raising(exc):
    def handle(_):
        raise exc

    return handle


# --- who may come in -----------------------------------------------------------------------------


def test_a_wrong_password_is_reported_in_thingsboards_words():
    told = fails(FakeRestApi().handle, Login(USER, "wr0ng"))
    assert told == f"{USER} cannot log in: Invalid username or password"


@pytest.mark.parametrize("authority", ["SYS_ADMIN", "CUSTOMER_USER"])
def test_a_user_who_is_no_tenant_administrator_is_refused(authority):
    told = fails(FakeRestApi(authority=authority).handle)
    assert told.startswith(f"{USER} is no tenant administrator, but {authority}")


def test_an_old_thingsboard_knows_no_api_keys():
    told = fails(FakeRestApi(version="4.2.1").handle, Login(api_key=API_KEY))
    assert "the API key is not accepted" in told
    assert "before 4.3" in told


def test_a_wrong_api_key_is_not_accepted():
    assert "not accepted" in fails(FakeRestApi(version="4.3.0").handle, Login(api_key="wr0ng"))


def test_a_user_with_a_second_factor_cannot_install():
    answer = json.dumps({"token": "t", "scope": "PRE_VERIFICATION_TOKEN"}).encode()
    assert "second factor" in fails(answering(200, answer))


# --- what is no ThingsBoard ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (answering(404, b"<html>not here</html>"), "is this ThingsBoard?"),
        (answering(200, b"<html>hello</html>"), "not JSON"),
        (answering(200, b"[]"), "is this ThingsBoard?"),
        (answering(200, b'{"token": 1}'), "is this ThingsBoard?"),
        (answering(200), "is this ThingsBoard?"),
        (
            answering(302, Location="https://thingsboard/api/auth/login?x=1"),
            "https://thingsboard/api/auth",
        ),
        (answering(502, b"Bad Gateway"), "502"),
        (raising(httpx2.ConnectError("[Errno 111] Connection refused")), "not reachable"),
        (raising(httpx2.ConnectTimeout("")), "no answer within 30 s"),
        (raising(httpx2.ReadTimeout("")), "no answer within 30 s"),
        (raising(httpx2.RemoteProtocolError("Server disconnected")), "the connection broke off"),
    ],
)
def test_what_is_no_thingsboard_is_reported(handle, message):
    assert message in fails(handle)


@pytest.mark.parametrize(
    "url",
    [
        "thingsboard:8080",
        "ftp://thingsboard",
        "http://",
        "//thingsboard",
        "",
        "http://u:pw@thingsboard",
        "http://thingsboard:x",
    ],
)
def test_a_url_that_cannot_be_meant_is_misuse(url):
    with pytest.raises(UsageError, match="--url"), open_rest(url, GOOD):
        pass


def test_a_credential_that_no_header_can_carry_is_not_shown():
    exc = httpx2.LocalProtocolError(f"Illegal header value b'ApiKey {API_KEY}'")
    assert "cannot be put into a header" in fails(raising(exc), Login(api_key=API_KEY))


def test_answers_that_thingsboard_does_not_give_are_reported():
    thingsboard = FakeRestApi()

    def handle(request):
        if request.url.path == "/api/ruleChains":
            return httpx2.Response(200, json={"rows": []})
        return thingsboard.handle(request)

    assert fails(handle) == "/api/ruleChains: not an answer of ThingsBoard"


# --- while it works ------------------------------------------------------------------------------


def refusing(thingsboard, path, fault):
    def handle(request):
        if (request.method, request.url.path) == ("POST", path):
            return httpx2.Response(fault.status, json=fault.answer)
        return thingsboard.handle(request)

    return httpx2.MockTransport(handle)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(403, "Device profiles limit reached!", 41), "403: Device profiles limit reached!"),
        (Fault(500, "Database error", 31), "500: Database error"),
        (Fault(429, "Too many requests for current tenant!", 33), "429: Too many requests"),
    ],
)
def test_what_thingsboard_refuses_is_reported_in_its_words(fault, message):
    transport = refusing(FakeRestApi(), "/api/deviceProfile", fault)
    with (
        open_rest("http://thingsboard", GOOD, transport=transport) as rest,
        pytest.raises(RequestRefused) as caught,
    ):
        list(install(rest, Options()))
    assert message in str(caught.value)


def test_a_change_by_somebody_else_at_the_same_moment_is_not_overwritten():
    thingsboard = FakeRestApi()
    with open_rest(
        "http://thingsboard", GOOD, transport=httpx2.MockTransport(thingsboard.handle)
    ) as rest:
        list(install(rest, Options()))
        thingsboard.one("DEVICE_PROFILE", "EV charger")["description"] = "mine"

        def handle(request):
            if request.method == "POST" and request.url.path == "/api/deviceProfile":
                thingsboard.one("DEVICE_PROFILE", "EV charger")["version"] += 1
            return thingsboard.handle(request)

        transport = httpx2.MockTransport(handle)
    with (
        open_rest("http://thingsboard", GOOD, transport=transport) as rest,
        pytest.raises(ThingsboardError, match=r"another client changed it.*run this again"),
    ):
        list(install(rest, Options()))
    assert thingsboard.one("DEVICE_PROFILE", "EV charger")["description"] == "mine"


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path):
    """(URL, file of its authority) of a thingsboard that speaks TLS."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(FakeRestApi()))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # who does not trust us hangs up
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    yield f"https://localhost:{server.server_port}", str(tmp_path / "ca.pem")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.real_time
def test_a_certificate_of_ones_own_authority_is_trusted_if_it_is_given(secure):
    url, authority = secure
    with (
        pytest.raises(ThingsboardError, match=r"certificate is not to be trusted.*--ca-cert"),
        open_rest(url, GOOD),
    ):
        pass
    with open_rest(url, GOOD, ca_cert=authority) as rest:
        assert len(list(install(rest, Options()))) > 5


@pytest.mark.real_time
def test_plain_http_to_a_tls_port_is_reported(secure):
    url, _ = secure
    with (
        pytest.raises(ThingsboardError, match="the connection broke off"),
        open_rest(url.replace("https", "http"), GOOD),
    ):
        pass


def test_a_file_of_no_authorities_is_misuse(tmp_path):
    (tmp_path / "ca.pem").write_text("hello")
    for name in ("ca.pem", "absent.pem"):
        with (
            pytest.raises(UsageError, match="--ca-cert"),
            open_rest("https://thingsboard", GOOD, ca_cert=str(tmp_path / name)),
        ):
            pass


# --- where the secret may lie --------------------------------------------------------------------


def test_a_password_comes_from_argument_file_environment_or_hand(tmp_path):
    (tmp_path / "password").write_text("from file\n")
    environment = {"OCPP_GATEWAY_TB_PASSWORD": "from environment"}
    given = {"username": USER, "password": "given", "password_file": str(tmp_path / "password")}
    assert choose(given, environment, None) == Login(USER, "given")
    del given["password"]
    assert choose(given, environment, None) == Login(USER, "from file")
    del given["password_file"]
    assert choose(given, environment, None) == Login(USER, "from environment")
    assert choose(given, {}, lambda: "typed") == Login(USER, "typed")


def test_an_api_key_comes_from_argument_file_or_environment(tmp_path):
    (tmp_path / "key").write_text("from file\n")
    environment = {"OCPP_GATEWAY_TB_API_KEY": "from environment"}
    assert choose({"api_key": "given"}, environment, None) == Login(api_key="given")
    assert choose({"api_key_file": str(tmp_path / "key")}, environment, None).api_key == "from file"
    assert choose({}, environment, None).api_key == "from environment"
    assert choose({"username": USER, "password": "p"}, environment, None).api_key == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no login"),
        ({"username": USER}, "no password"),
        ({"username": USER, "api_key": "k"}, "only one of them"),
        ({"username": USER, "password_file": "absent"}, "No such file"),
        ({"username": USER, "password_file": "/"}, "--password-file /"),
        ({"username": USER, "password_file": "/dev/null"}, "is empty"),
        ({"api_key": "k\u00e9y"}, "an HTTP header"),
    ],
)
def test_a_login_that_cannot_be_meant_is_misuse(given, message):
    with pytest.raises(UsageError, match=message):
        choose(given, {}, None)


def test_a_login_shows_no_secret():
    assert not any(secret in repr(Login(USER, PASSWORD, API_KEY)) for secret in NEVER_TOLD)
