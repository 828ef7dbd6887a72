"""A real S3 service (moto's server) behind a TCP proxy that can be cut off and put back."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Literal

How = Literal["gone", "silent", "busy", "forbidden"]


def _answer(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


ANSWERS = {
    "silent": b"",
    "busy": _answer(503, "ServiceUnavailable"),
    "forbidden": _answer(403, "AccessDenied"),
}


class Proxy:
    """Forwards connections to a port until it is cut off.

    Attributes:
        port: Where it listens, also after it was cut off and put back.
        refused: Connections that were answered with an error or not at all.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._how: How | None = None
        self._open: set[socket.socket] = set()
        self.refused = 0
        self.port = 0
        self.restore()

    def cut(self, how: How = "gone") -> None:
        """Break every connection, and refuse new ones, or answer them with 503, 403 or nothing."""
        self._how = how
        if how == "gone":
            self._shut(self._listener)
        for connection in list(self._open):
            self._shut(connection)

    def restore(self) -> None:
        """Forward connections (again)."""
        self._how = None
        if self.port and self._listener.fileno() >= 0:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        how = self._how  # once: another thread may restore meanwhile
        if how in ANSWERS:
            self.refused += 1
            with contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(ANSWERS[how])
                while how == "silent" and client.recv(65536):
                    pass
            self._shut(client)
            return
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open |= {client, server}
        back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
        back.start()
        self._copy(client, server)
        back.join()
        self._open -= {client, server}

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                sink.sendall(content)
        self._shut(source)
        self._shut(sink)

    @staticmethod
    def _shut(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


@contextlib.contextmanager
def s3_bucket(name: str) -> Iterator[Proxy]:
    """Serve an empty bucket; the environment leads whoever opens ``s3://NAME`` to it.

    The environment also reaches the processes that are started meanwhile.
    """
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # botocore's own patience would only make the tests slower
    }
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        boto3.client("s3").create_bucket(Bucket=name)
        yield proxy
    finally:
        proxy.cut()
        server.stop()
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
        s3fs.S3FileSystem.clear_instance_cache()
