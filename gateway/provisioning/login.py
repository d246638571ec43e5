"""The login for ThingsBoard's REST API: best from a file or the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from .errors import UsageError

PASSWORD = "OCPP_GATEWAY_TB_PASSWORD"  # noqa: S105  the variable's name
API_KEY = "OCPP_GATEWAY_TB_API_KEY"


@attrs.frozen
class Login:
    """A user with a password, or an API key (ThingsBoard from 4.3 on)."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    api_key: str = attrs.field(default="", repr=False)


def choose(
    given: Mapping[str, str | None],
    environment: Mapping[str, str],
    ask: Callable[[], str] | None,
) -> Login:
    """The login that the arguments and the environment name.  Raises Misused.

    given: username, password, password_file, api_key, api_key_file.
    ask: prompts for the password; None without a terminal.
    """
    username = given.get("username")
    api_key = given.get("api_key") or _in_file(given.get("api_key_file"), "--api-key-file")
    if username and api_key:
        raise UsageError("--username and --api-key: only one of them can log in")
    if not username:
        api_key = api_key or environment.get(API_KEY)
        if not api_key:
            raise UsageError(f"no login: give --username, --api-key or {API_KEY}")
        return Login(api_key=_one_line(api_key, "the API key"))
    password = (
        given.get("password")
        or _in_file(given.get("password_file"), "--password-file")
        or environment.get(PASSWORD)
        or (ask() if ask is not None else None)
    )
    if not password:
        raise UsageError(f"no password: give --password-file, {PASSWORD} or --password")
    return Login(username, password)


def _in_file(name: str | None, option: str) -> str | None:
    if name is None:
        return None
    try:
        secret = Path(name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not text"
        raise UsageError(f"{option} {name}: {why}") from exc
    if not secret:
        raise UsageError(f"{option} {name}: is empty")
    return secret


def _one_line(secret: str, what: str) -> str:
    if not secret.isascii() or not secret.isprintable():
        raise UsageError(f"{what} has characters that an HTTP header cannot carry")
    return secret
