"""A program of the operator's, as a short code's hook asks it: a small HTTP server that answers as the test says.

    with Hook() as hook:                                   # hook.url goes into the configuration
        hook.plan("ok, thanks")                            # text/plain
        hook.plan({"text": "ok"})                          # JSON
        hook.plan(204), hook.plan(500), hook.plan("cut"), hook.plan(("slow", 5, "too late"))
        ...
        assert hook.asked[0].json["text"] == "hello"

Plans are used up one by one; afterwards everything is answered as `otherwise` says.  Standard library only.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    when: float

    @property
    def json(self):
        return json.loads(self.body)


class Hook:
    """A plan is a status (200 to 599, no body), a text, something for JSON, `bytes` (sent as they are, instead of any HTTP), "cut"
    (closes without an answer), "half" (announces more than it sends), ("slow", seconds, plan), ("status", code, plan)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, otherwise=204):
        self.asked: list[Asked] = []
        self.complaints: list[str] = []
        self.otherwise = otherwise
        self._plans: list = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = self.headers.get("Content-Length")
                if length is None:
                    hook.complaints.append("a POST without Content-Length")
                body = self.rfile.read(int(length or 0))
                with hook._changed:
                    hook.asked.append(Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body, time.monotonic()))
                    plan = hook._plans.pop(0) if hook._plans else hook.otherwise
                    hook._changed.notify_all()
                self.say(plan)

            do_GET = do_PUT = do_POST

            def say(self, plan, code: int = 200):
                if isinstance(plan, tuple) and plan[0] == "slow":
                    hook._closing.wait(plan[1])
                    self.say(plan[2], code)
                elif isinstance(plan, tuple) and plan[0] == "status":
                    self.say(plan[2], plan[1])
                elif plan == "cut":
                    self.close_connection = True
                elif plan == "half":
                    self.reply(200, "text/plain", b"half", announce=100)
                    self.close_connection = True
                elif isinstance(plan, bytes):
                    self.wfile.write(plan)
                    self.close_connection = True
                elif isinstance(plan, int):
                    self.reply(plan, "", b"")
                elif isinstance(plan, str):
                    self.reply(code, "text/plain; charset=utf-8", plan.encode())
                else:
                    self.reply(code, "application/json", json.dumps(plan).encode())

            def reply(self, code: int, kind: str, body: bytes, announce: int | None = None):
                try:
                    self.send_response(code)
                    if kind:
                        self.send_header("Content-Type", kind)
                    if code != 204:
                        self.send_header("Content-Length", str(len(body) if announce is None else announce))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass                                   # whoever asked has gone

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_):
                pass                                       # a connection that was cut, by one side or the other

        self._server = Server((host, port), Handler)
        self.host, self.port = self._server.server_address[:2]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/text"

    def plan(self, *plans):
        with self._changed:
            self._plans += plans

    def wait(self, count: int, timeout: float = 5) -> bool:
        """Until it was asked so often."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.asked) >= count, timeout)

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)
