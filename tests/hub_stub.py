"""A stand-in for the Hub's HTTP API: takes commits and collections, and keeps their files. The test machines do not reach the
real one; what it answers follows what `huggingface_hub` asks."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLIENT = {"HF_TOKEN": "hf_nothing", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""What a process that talks to a stand-in needs in its environment, beside its endpoint."""


class HubStub:
    """`repos` maps `models/owner/name` or `datasets/owner/name` to its files, `collections` titles to their items."""

    def __init__(self):
        self.repos = {}
        self.collections = {}  # (namespace, title) -> [(type, id, note)]
        self.private = {}  # address or title -> what was asked for
        self.commits = []  # repository of each
        self.fail = False  # refuses every commit
        self.fail_at = ""  # refuses what is posted to paths like this one
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(stub.post(self.path, body))

            def do_GET(self):
                self._answer(stub.get(self.path))

            def do_HEAD(self):
                self._answer(stub.get(self.path))

            def _answer(self, answer):
                status, headers = 200 if answer is not None else 404, {}
                if isinstance(answer, tuple):
                    status, answer = answer
                if isinstance(answer, bytes):
                    payload = answer
                    headers = {
                        "ETag": f'"{hashlib.sha1(answer).hexdigest()}"',
                        "X-Repo-Commit": "0" * 40,
                    }  # files are kept by it
                else:
                    payload = json.dumps({"error": "not found"} if answer is None else answer).encode()
                    headers = {"Content-Type": "application/json"}
                if status == 404:
                    headers["X-Error-Code"] = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(payload))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(payload)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self):
        """The environment of a process that talks to this one: the Hub's client reads it when it is imported."""
        return {**os.environ, **CLIENT, "HF_ENDPOINT": self.endpoint}

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def get(self, path):
        if path.startswith("/api/whoami"):
            return {"name": "me", "type": "user", "orgs": []}
        collection = re.match(r"/api/collections/([^/]+)/([^/?]+)$", path)
        if collection:
            return self._collection(*self._titles()[f"{collection[1]}/{collection[2]}"])
        file = re.match(r"/(datasets/[^/]+/[^/]+|[^/]+/[^/]+)/resolve/[^/]+/([^?]+)", path)
        if file:
            repository = file[1] if file[1].startswith("datasets/") else f"models/{file[1]}"
            return self.repos.get(repository, {}).get(file[2])
        found = re.match(r"/api/((?:models|datasets)/[^/]+/[^/?]+)(/tree/)?", path)
        if found and found[1] in self.repos:
            if found[2]:
                files = self.repos[found[1]].items()
                return [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in files]
            files = [{"rfilename": name} for name in self.repos[found[1]]]
            return {"id": found[1].split("/", 1)[1], "sha": "0" * 40, "siblings": files, "private": False, "tags": []}
        return None

    def post(self, path, body):
        if self.fail_at and fnmatch(path, self.fail_at):
            return 503, {"error": "the Hub is being repaired"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = f"{asked.get('type') or 'model'}s"
            owner = asked.get("organization") or "me"
            self.repos.setdefault(f"{kind}/{owner}/{asked['name']}", {})
            prefix = "datasets/" if kind == "datasets" else ""
            url = f"{self.endpoint}/{prefix}{owner}/{asked['name']}"
            self.private.setdefault(f"{kind}/{owner}/{asked['name']}", asked.get("private"))
            return {"url": url}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.startswith("/api/collections"):
            return self._post_collection(path, json.loads(body))
        found = re.match(r"/api/((?:models|datasets)/[^/]+/[^/]+)/(preupload|commit)/", path)
        if found is None:
            return None
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if self.fail:
            return None
        self.commits.append(found[1])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.repos[found[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            if entry["key"] == "deletedFile":
                del self.repos[found[1]][entry["value"]["path"]]
        address = found[1].removeprefix("models/")
        return {"commitUrl": f"{self.endpoint}/{address}/commit/{'0' * 40}", "commitOid": "0" * 40, "pullRequestUrl": None}

    def _titles(self):
        """Slug -> (namespace, title)."""
        return {f"{owner}/{title.lower().replace(' ', '-')}-{'0' * 24}": (owner, title) for owner, title in self.collections}

    def _collection(self, owner, title):
        (slug,) = (slug for slug, key in self._titles().items() if key == (owner, title))
        items = [
            {"_id": str(place), "id": name, "type": kind, "position": place, "note": note and {"text": note}}
            for place, (kind, name, note) in enumerate(self.collections[owner, title])
        ]
        facts = {"lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "theme": "green", "upvotes": 0}
        return {"slug": slug, "title": title, "owner": owner, "items": items, "private": False, **facts}

    def _post_collection(self, path, asked):
        """A title or an item that is there already is answered with 409, as the Hub does."""
        if path == "/api/collections":
            key = (asked["namespace"], asked["title"])
            if key in self.collections:
                (slug,) = (slug for slug, there in self._titles().items() if there == key)
                return 409, {"error": "exists", "slug": slug}
            self.collections[key] = []
            self.private[asked["title"]] = asked["private"]
            return self._collection(*key)
        owner, title = self._titles()[path.removeprefix("/api/collections/").removesuffix("/items")]
        item = (asked["item"]["type"], asked["item"]["id"], asked.get("note"))
        if item[:2] in [there[:2] for there in self.collections[owner, title]]:
            return 409, {"error": "exists"}
        self.collections[owner, title].append(item)
        return self._collection(owner, title)
