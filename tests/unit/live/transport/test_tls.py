"""The same conversation under TLS, with a certificate that signs itself."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess

import numpy as np
import pytest

from kspark.errors import ClusterError
from kspark.live.transport import channel
from kspark.weights import Weight, WeightSpec

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificate")
LARGE = WeightSpec((Weight("w", (1_000_003,), "float32", "trainable"),))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=kspark", "-keyout", key, "-out", chain]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return key, chain


@pytest.fixture
def secure(serve, certificate):
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return lambda spec=LARGE, **options: serve(spec, ssl_context=context, **options)


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=certificate[1])


def test_push_and_report(secure, client_of, handler, trusting):
    handler.weights = np.arange(LARGE.size, dtype="float32")
    client = client_of(secure(), spec=LARGE, ssl_context=trusting)
    out = np.empty(LARGE.size, "float32")
    client.push(np.ones_like(out), sequence=1, base_version=0, num_examples=1, out=out)
    np.testing.assert_array_equal(out, np.arange(1, LARGE.size + 1, dtype="float32"))
    _, (double,) = client.report({}, [np.arange(5)])
    np.testing.assert_array_equal(double, [0, 2, 4, 6, 8])


def test_a_vector_is_received_in_calls_of_limited_size(
    secure, client_of, handler, trusting, monkeypatch
):
    """A call for 2 GiB is an error."""
    monkeypatch.setattr(channel, "_MOST", 1000)
    handler.weights = np.arange(LARGE.size, dtype="float32")
    client, out = client_of(secure(), spec=LARGE, ssl_context=trusting), np.empty(LARGE.size, "f4")
    client.pull(out)
    np.testing.assert_array_equal(out, handler.weights)


def test_a_certificate_that_nobody_vouches_for(secure, client_of, handler):
    with pytest.raises(
        ClusterError, match="TLS handshake with the aggregator at.*CERTIFICATE_VERIFY"
    ):
        client_of(secure(), spec=LARGE, ssl_context=ssl.create_default_context())
    assert handler.calls == []


def test_a_client_without_tls(secure, client_of, handler, monkeypatch):
    monkeypatch.setattr("kspark.live.transport.server.HANDSHAKE_TIMEOUT", 0.2)
    with pytest.raises(ClusterError):
        client_of(secure(), spec=LARGE, timeout=5.0)
    assert handler.calls == []


def test_a_stranger_that_does_not_speak_tls(secure, stranger, caplog):
    sock = stranger(secure())
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    assert "The connection broke: [SSL" in caplog.text


def test_a_silent_stranger(secure, stranger, caplog, monkeypatch):
    monkeypatch.setattr("kspark.live.transport.server.HANDSHAKE_TIMEOUT", 0.1)
    sock = stranger(secure())
    assert sock.recv(1) == b""
    assert "silent or slow for 0.1 s" in caplog.text


def test_close_ends_an_idle_connection(secure, client_of, handler, trusting):
    server = secure()
    client_of(server, spec=LARGE, ssl_context=trusting)
    server.close()
    assert handler.lost_replica()[:2] == (0, 0)


def test_a_replica_that_goes_without_goodbye(secure, trusting, handler, token):
    from kspark.live.transport.channel import Channel
    from kspark.live.transport.handshake import introduce
    from kspark.live.wire import UNPROVED_SERVER

    sock = socket.create_connection(secure().address, 30)
    with trusting.wrap_socket(sock, server_hostname="127.0.0.1") as secured:
        introduce(Channel(secured, UNPROVED_SERVER, 30.0), token, LARGE.digest(), 0, 0)
    assert handler.lost_replica()[:2] == (0, 0)
