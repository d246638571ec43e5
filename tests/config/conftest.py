from __future__ import annotations

import pytest
import trustme

from gateway.config.load import ConfigError, load

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g"


@pytest.fixture
def write(tmp_path):
    def written(text, name="gateway.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.fixture
def certificates(tmp_path):
    """PEM files: an authority, and a server's chain and key."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in server.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    return tmp_path


def faults_of(path, environment=None):
    """Every fault as the line that is shown."""
    with pytest.raises(ConfigError) as caught:
        load(path, environment or {})
    return [f"{fault.where}: {fault.what}" for fault in caught.value.faults if fault.fatal]


def warnings_of(path, environment=None):
    return [f"{fault.where}: {fault.what}" for fault in load(path, environment or {})[1]]
