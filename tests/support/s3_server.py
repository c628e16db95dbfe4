"""A small object store in memory, spoken to over HTTP, which misbehaves on request.

It is for what a good server does not do. `tests/support/seaweed.py` has a real one.
"""

import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "chunks"
_PAGE = 1000


class ObjectStore:
    """What the server has, and how it misbehaves.

    Attributes:
        objects: Contents by key.
        key_ids: Access keys that it takes; signatures are not looked at.
        confirms: Whether it confirms checksums.
        answers: Called with method and key before each request; what it returns is answered
            instead: a status, and a body. An exception ends the connection.
        alters: Called with the body of each object that leaves.
        keeps: Called with each object that arrives: what is kept of it.
        lag: Keys that are not listed yet.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.key_ids = {"first"}
        self.confirms = True
        self.answers: Callable[[str, str], tuple[int, str] | None] = lambda _, __: None
        self.alters: Callable[[bytes], bytes] = lambda content: content
        self.keeps: Callable[[bytes], bytes] = lambda content: content
        self.lag: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.endpoint = ""

    def text(self, prefix: str) -> str:
        """Return a place in its bucket, as a person writes it."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}"


def _error(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ClassVar[ObjectStore]

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        store = self.store
        url = urlsplit(self.path)
        _, bucket, *rest = unquote(url.path).split("/", 2)
        key = rest[0] if rest else ""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        store.requests.append((self.command, key))
        try:
            odd = store.answers(self.command, key)
        except ConnectionError:
            self.close_connection = True
            return
        if odd is not None:
            self._answer(odd[0], _error(odd[1]).encode())
            return
        found = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        if found is None or found[1] not in store.key_ids:
            self._answer(403, _error("InvalidAccessKeyId").encode())
        elif bucket != BUCKET:
            self._answer(404, _error("NoSuchBucket").encode())
        else:
            getattr(self, f"_{self.command.lower()}")(key, body, parse_qs(url.query))

    do_DELETE = do_GET = do_HEAD = do_PUT = do_POST = _handle  # noqa: N815  # the names that http.server calls

    def _sum(self, content: bytes) -> dict[str, str]:
        if not self.store.confirms:
            return {}
        return {"x_amz_checksum_sha256": b64encode(sha256(content).digest()).decode()}

    def _put(self, key: str, body: bytes, _: Any) -> None:
        if self.headers.get("If-None-Match") and key in self.store.objects:
            self._answer(412, _error("PreconditionFailed").encode())
            return
        self.store.objects[key] = self.store.keeps(body)
        self._answer(200, b"", **self._sum(self.store.objects[key]))

    def _get(self, key: str, _: bytes, query: dict[str, list[str]]) -> None:
        if "list-type" in query:
            self._list(query["prefix"][0], query.get("start-after", [""])[0])
        elif key not in self.store.objects:
            self._answer(404, _error("NoSuchKey").encode())
        else:
            content = self.store.objects[key]
            self._answer(200, self.store.alters(content), **self._sum(content))

    _head = _get

    def _list(self, prefix: str, after: str) -> None:
        keys = sorted(k for k in self.store.objects if k.startswith(prefix) and k > after)
        keys = [key for key in keys if key not in self.store.lag]
        rows = "".join(
            f"<Contents><Key>{k}</Key><Size>{len(self.store.objects[k])}</Size></Contents>"
            for k in keys[:_PAGE]
        )
        more = str(len(keys) > _PAGE).lower()
        body = f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, body.encode())

    def _delete(self, key: str, _: bytes, __: Any) -> None:
        self.store.objects.pop(key, None)
        self._answer(204)

    def _post(self, _: str, body: bytes, __: Any) -> None:
        for key in re.findall(r"<Key>([^<]*)</Key>", body.decode()):
            self.store.objects.pop(key, None)
        self._answer(200, b"<DeleteResult></DeleteResult>")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that a test ends."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run a server for the time of the block."""
    store = ObjectStore()
    handler = type("Handler", (_Handler,), {"store": store})
    with _Server(("127.0.0.1", 0), handler) as server:
        store.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
