"""A stand-in for the part of vLLM's server that TRL's asynchronous rollouts ask; no test machine has vLLM."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def rollout_server(answer):
    """Serves completions; gives the server's address.

    Args:
        answer: Token ids of a prompt -> token ids of its completion.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            ids = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
            body = {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": [-1.0] * len(ids)}}]}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
