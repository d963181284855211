"""A stand-in for the Hub's HTTP API: takes commits and keeps their files. The test machines do not reach the real one."""

from __future__ import annotations

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubStub:
    """`repos` maps `models/owner/name` or `datasets/owner/name` to its files."""

    def __init__(self):
        self.repos = {}
        self.fail = False  # refuses every commit
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(stub.post(self.path, body))

            def do_GET(self):
                self._answer(stub.get(self.path))

            def _answer(self, answer):
                payload = json.dumps(answer or {"error": "not found"}).encode()
                self.send_response(200 if answer is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def get(self, path):
        if path.startswith("/api/whoami"):
            return {"name": "me", "type": "user", "orgs": []}
        found = re.match(r"/api/((?:models|datasets)/[^/]+/[^/?]+)", path)
        if found and found[1] in self.repos:
            files = [{"rfilename": name} for name in self.repos[found[1]]]
            return {"id": found[1].split("/", 1)[1], "sha": "0" * 40, "siblings": files, "private": False, "tags": []}
        return None

    def post(self, path, body):
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = f"{asked.get('type') or 'model'}s"
            owner = asked.get("organization") or "me"
            self.repos.setdefault(f"{kind}/{owner}/{asked['name']}", {})
            prefix = "datasets/" if kind == "datasets" else ""
            return {"url": f"{self.endpoint}/{prefix}{owner}/{asked['name']}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        found = re.match(r"/api/((?:models|datasets)/[^/]+/[^/]+)/(preupload|commit)/", path)
        if found is None:
            return None
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if self.fail:
            return None
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.repos[found[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        address = found[1].removeprefix("models/")
        return {"commitUrl": f"{self.endpoint}/{address}/commit/{'0' * 40}", "commitOid": "0" * 40, "pullRequestUrl": None}
