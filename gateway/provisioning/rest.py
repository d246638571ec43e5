"""The part of ThingsBoard's REST API that the installer uses, with errors in words.

It is synchronous: one call follows another, and there is nothing else to serve meanwhile.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec

from .errors import RequestRefused, ThingsboardError, UsageError
from .login import Login

Entity = dict[str, Any]
"""A JSON object of ThingsBoard, with its id as `{"id": {"entityType": ..., "id": ...}}`."""

TIMEOUT = 30.0  # seconds for each step of a call
_PAGE = 100
_MAX_PAGES = 1_000
_TENANT_ADMIN = "TENANT_ADMIN"


class Rest:
    """The API, once logged in.  Owns: nothing but the client."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, body=body)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def find_by_name(self, path: str, key: str, name: str, **query: Any) -> Entity | None:
        """The one entity of a list whose `key` is `name`, or None."""
        for page in range(_MAX_PAGES):
            found = self.get(path, pageSize=_PAGE, page=page, textSearch=name, **query)
            try:
                for entity in found["data"]:  # the search also finds names that contain it
                    if entity[key] == name:
                        return dict(entity)
                if not found["hasNext"]:
                    return None
            except (TypeError, KeyError):
                raise ThingsboardError(f"{path}: not an answer of ThingsBoard") from None
        raise ThingsboardError(f"{path}: a list without an end")

    def _call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        response = self._send(method, path, query=query, body=body)
        if response.is_success:
            return _content(path, response)
        message = _error_message(response)
        if response.status_code == 409:
            raise ThingsboardError(
                f"{path}: another client changed it at the same moment ({message}); run this again"
            )
        raise RequestRefused(f"{method} {path}", response.status_code, message)

    def _send(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> httpx2.Response:
        where = str(self._client.base_url).rstrip("/")
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            return self._client.request(
                method, path, params=query or None, content=content, headers=headers
            )
        except httpx2.TimeoutException as exc:
            raise ThingsboardError(f"{where}: no answer within {TIMEOUT:.0f} s") from exc
        except httpx2.ConnectError as exc:
            raise ThingsboardError(f"{where}: {_unreachable(exc)}") from exc
        except httpx2.LocalProtocolError:  # its message shows the header, and so a credential
            raise ThingsboardError(f"{where}: the login cannot be put into a header") from None
        except httpx2.HTTPError as exc:
            raise ThingsboardError(f"{where}: the connection broke off ({exc})") from exc

    # --- login -----------------------------------------------------------------------------------

    def log_in(self, login: Login) -> None:
        """Log in.  Raises ThingsboardError unless the user is a tenant administrator."""
        if login.api_key:
            self._client.headers["X-Authorization"] = f"ApiKey {login.api_key}"
        else:
            self._client.headers["X-Authorization"] = f"Bearer {self._token(login)}"
        response = self._send("GET", "/api/auth/user")
        if response.status_code == 401 and login.api_key:
            raise ThingsboardError(
                f"the API key is not accepted ({_error_message(response)});"
                " ThingsBoard before 4.3 knows no API keys: use --username there"
            )
        if not response.is_success:
            raise RequestRefused(
                "GET /api/auth/user", response.status_code, _error_message(response)
            )
        user = _content("/api/auth/user", response)
        authority = user.get("authority") if isinstance(user, dict) else None
        if authority != _TENANT_ADMIN:
            raise ThingsboardError(
                f"{login.username or 'the API key'} is no tenant administrator, but {authority}:"
                " what is installed belongs to a tenant, so its administrator must do it"
            )

    def _token(self, login: Login) -> str:
        body = {"username": login.username, "password": login.password}
        response = self._send("POST", "/api/auth/login", body=body)
        if response.status_code == 401:
            raise ThingsboardError(f"{login.username} cannot log in: {_error_message(response)}")
        if response.is_redirect:
            location = response.headers.get("Location", "").partition("?")[0]
            raise ThingsboardError(f"it redirects: give --url as {location or 'its target'}")
        if not response.is_success:
            raise ThingsboardError(
                f"{self._client.base_url}: is this ThingsBoard?  Its login answers"
                f" {response.status_code}: {_error_message(response)}"
            )
        answer = _content("/api/auth/login", response)
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise ThingsboardError(f"{self._client.base_url}: is this ThingsBoard?")
        if answer.get("scope") == "PRE_VERIFICATION_TOKEN":
            raise ThingsboardError(
                f"{login.username} needs a second factor to log in: use an API key (4.3 and later)"
                " or a tenant administrator without one"
            )
        return str(answer["token"])


@contextmanager
def open_rest(
    url: str,
    login: Login,
    *,
    ca_cert: str | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> Iterator[Rest]:
    """The API at `url`, logged in.  Raises ThingsboardError.

    ca_cert: a PEM file of authorities, in place of the system's.
    transport: in place of the network, for tests.
    """
    try:
        where = _checked_url(url)
    except httpx2.InvalidURL as exc:
        raise UsageError(f"--url: {exc}") from exc
    context = _tls_context(ca_cert, needed=where.scheme == "https")
    client = httpx2.Client(base_url=where, timeout=TIMEOUT, verify=context, transport=transport)
    with client:
        rest = Rest(client)
        rest.log_in(login)
        yield rest


def _checked_url(url: str) -> httpx2.URL:
    checked = httpx2.URL(url)
    if checked.scheme not in ("http", "https") or not checked.host:
        raise UsageError("--url: must be like http://thingsboard.example.org:8080")
    if checked.userinfo:
        raise UsageError("--url: a password does not belong there: use --password-file")
    return checked


def _tls_context(ca_cert: str | None, *, needed: bool) -> ssl.SSLContext:
    try:
        if needed or ca_cert is not None:
            return ssl.create_default_context(cafile=ca_cert)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"--ca-cert {ca_cert}: no file of certificates") from exc
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no certificate, and so reads no files


def _content(path: str, response: httpx2.Response) -> Any:
    if not response.content:
        return None
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        raise ThingsboardError(
            f"{path}: the answer is not JSON; is --url that of ThingsBoard itself?"
        ) from None


def _error_message(response: httpx2.Response) -> str:
    """ThingsBoard's error message, or the name of the HTTP status."""
    try:
        answer = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        answer = None
    message = answer.get("message") if isinstance(answer, dict) else None
    return str(message)[:300] if message else response.reason_phrase or "nothing more"


def _unreachable(exc: httpx2.ConnectError) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not to be trusted: {cause.verify_message} (--ca-cert?)"
        if isinstance(cause, ssl.SSLError):
            return f"TLS fails: {str(cause.reason or cause).replace('_', ' ').lower()}"
        cause = cause.__cause__ or cause.__context__
    return f"not reachable: {exc}"
