"""The file that the gateway reads its access token from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import attrs

from .errors import ThingsboardError


@attrs.frozen
class TokenFile:
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def contains(self, token: str) -> bool:
        try:
            return self.path.read_text("utf-8").strip() == token
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError) as exc:
            raise ThingsboardError(f"{self.path}: cannot be read: {exc}") from exc

    def write(self, token: str) -> None:
        """Write the token, whole or not at all, readable by the owner only."""
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:  # mkstemp made it 0600
                    file.write(token + "\n")
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise ThingsboardError(f"{self.path}: cannot be written: {exc.strerror}") from exc
