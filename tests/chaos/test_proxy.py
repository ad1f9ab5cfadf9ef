"""The proxy of the chaos runs: what it passes on, and what it loses."""

import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from tests.chaos.proxy import END_TXN, PRODUCE, SCRIPT, Proxies, Trap


@pytest.fixture
def server():
    """A server that answers each message with itself, or as Kafka would; what it has received, and its port."""
    heard, listener = [], socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection, suppress(ConnectionError):  # the proxy resets connections, also while this one answers
            while data := connection.recv(1 << 16):
                heard.append(data)
                connection.sendall(_swapped(data) if data[:2] == b"\0\0" else data)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield heard, listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def open_proxy(server):
    """Makes a proxy in front of the server."""
    proxies = Proxies()
    yield lambda **options: proxies.open(server[1], **options)
    proxies.close()


def _received(connection):
    """What came next; nothing after the end, however it came."""
    try:
        return connection.recv(1 << 16)
    except ConnectionError:
        return b""


def _swapped(request):
    """An answer in Kafka's protocol: as long as the request, with the correlation id in front."""
    return request[:4] + request[8:12] + request[4:8] + request[12:]


def _connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def _request(api_key, correlation, size=40):
    body = struct.pack(">HHi", api_key, 0, correlation).ljust(size, b".")
    return struct.pack(">i", len(body)) + body


def _answered(connection, message):
    connection.sendall(message)
    answer = b""
    while len(answer) < len(message) and (data := _received(connection)):
        answer += data
    return answer


def test_a_proxy_passes_on_messages_of_any_size(open_proxy):
    """Without orders it is invisible, for messages of any size."""
    message = bytes(range(256)) * 2_000
    with _connect(open_proxy()) as client:
        assert _answered(client, message) == message
    with _connect(open_proxy(speaks_kafka=True)) as client:
        assert _answered(client, _request(PRODUCE, 1, 30_000)) == _swapped(_request(PRODUCE, 1, 30_000))


def test_the_answer_to_a_script_is_lost(server, open_proxy):
    """The command reaches the server, its answer does not come back, and the next connection is served."""
    heard, _ = server
    proxy, trap = open_proxy(), Trap(SCRIPT)
    proxy.set_trap(trap)
    with _connect(proxy) as client:
        assert _answered(client, b"PING\r\n") == b"PING\r\n"
        assert not trap.has_sprung
        assert _answered(client, b"EVALSHA 1\r\n") == b""
    assert trap.has_sprung
    assert heard[-1] == b"EVALSHA 1\r\n"
    with _connect(proxy) as client:
        assert _answered(client, b"EVALSHA 2\r\n") == b"EVALSHA 2\r\n"


def test_the_answer_to_one_request_of_kafka_is_lost(server, open_proxy):
    """Of all proxies with the trap, the first request of the kind is answered to nobody, and only that one."""
    heard, _ = server
    proxies, trap = [open_proxy(speaks_kafka=True), open_proxy(speaks_kafka=True)], Trap(END_TXN)
    for proxy in proxies:
        proxy.set_trap(trap)
    with _connect(proxies[0]) as first, _connect(proxies[1]) as second:
        assert _answered(first, _request(PRODUCE, 7))
        assert _answered(first, _request(END_TXN, 8)) == b""
        assert _answered(second, _request(END_TXN, 9))
    assert trap.has_sprung
    deadline_s = time.monotonic() + 5  # the server may be slower than we are, and hear a request in pieces
    while _request(END_TXN, 8) not in b"".join(heard) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert _request(END_TXN, 8) in b"".join(heard)


def test_swallowed_data_never_arrives(server, open_proxy):
    """Behind a dead network nothing arrives; when it is back, the old connections are gone and new ones work."""
    heard, _ = server
    proxy = open_proxy()
    with _connect(proxy) as client:
        assert _answered(client, b"before") == b"before"
        proxy.swallow(on=True)
        open_proxy()  # the proxies' thread does this after the order
        client.sendall(b"lost")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.swallow(on=False)
        client.settimeout(10)
        assert _received(client) == b""
    with _connect(proxy) as client:
        assert _answered(client, b"after") == b"after"
    assert b"lost" not in b"".join(heard)
