"""A hub on loopback that speaks enough of the Hugging Face and ModelScope protocols for their own clients."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

COMMIT = "c" * 40
TOKEN = "secret-token"


@dataclass
class Repo:
    """Files by path; a private one asks for the token."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: list[str] = field(default_factory=list)


@dataclass
class SmallHub:
    """What the server holds and what happened to it."""

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    """(model or dataset, owner/name) -> repository."""
    cut: dict[str, int] = field(default_factory=dict)
    """Path -> bytes after which the next download of it breaks off."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Uploaded objects by SHA-256."""
    room: int | None = None
    """Objects that are still taken; None takes all."""
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    """Range headers of downloads: a resumed download asks for the rest only."""


@contextmanager
def serve() -> Iterator[SmallHub]:
    """Run the hub on a free port."""
    hub = SmallHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: SmallHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urllib.parse.urlparse(self.path)
        self.parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {url.path}")
        if self.parts == [""]:
            return self._send(200, {})
        if self.parts[:2] == ["api", "v1"] or self.parts[0] == "openapi":
            return self._modelscope(self.parts[2:])
        return self._huggingface(self.parts)

    # ---- Hugging Face

    def _huggingface(self, parts: list[str]) -> None:
        if parts[0] == "api":
            return self._huggingface_api(parts[1:])
        if parts[0] == "blob":
            return self._put_blob(parts[1])
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if kind == "dataset" else parts
        if parts[1].endswith(".git"):
            return self._lfs_batch()
        repo = self._repo(kind, "/".join(parts[:2]))
        if repo is None:
            return None
        path = "/".join(parts[4:])
        if path not in repo.files:
            return self._refuse(404, "EntryNotFound")
        return self._file(path, repo.files[path], {"X-Repo-Commit": COMMIT})

    def _huggingface_api(self, parts: list[str]) -> None:
        if parts[0] == "whoami-v2":
            return self._send(200, {"name": "alice", "auth": {}}) if self._trusted() else self._refuse(401)
        if parts == ["repos", "create"]:
            asked = json.loads(self.body)
            id = f"{asked.get('organization') or 'alice'}/{asked['name']}"
            return self._create(asked.get("type") or "model", id, asked)
        if parts[0] == "validate-yaml":
            return self._validate_card(json.loads(self.body)["content"])
        kind, id = parts[0].removesuffix("s"), "/".join(parts[1:3])
        repo = self._repo(kind, id)
        if repo is None:
            return None
        action, revision = (parts[3], parts[4]) if len(parts) > 4 else ("info", "main")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if action == "preupload":
            files = json.loads(self.body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in files
            ]
            return self._send(200, {"files": modes})
        if action == "commit":
            return self._commit(repo, kind, id)
        if action == "tree":
            return self._send(200, [self._entry(path, data) for path, data in repo.files.items()])
        return self._send(
            200,
            {
                "_id": "1",
                "id": id,
                "modelId": id,
                "sha": COMMIT,
                "private": repo.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in repo.files],
            },
        )

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _commit(self, repo: Repo, kind: str, id: str) -> None:
        if not self._trusted():
            return self._refuse(403)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repo.commits.append(value["summary"])
            elif entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.blobs[value["oid"]]
        url = f"{self.hub.url}/{id}/commit/{COMMIT}"
        return self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _lfs_batch(self) -> None:
        asked = json.loads(self.body)["objects"]
        objects = [self._place(item, f"{self.hub.url}/blob/{item['oid']}") for item in asked]
        return self._send(200, {"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")

    def _validate_card(self, text: str) -> None:
        """As Hugging Face does: a base is an id on the hub."""
        front = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
        base = front.get("base_model")
        if base is None or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):
            return self._send(200, {"errors": [], "warnings": []})
        errors = [{"message": f'"base_model" with value "{base}" is not valid'}]
        body = json.dumps({"errors": errors, "warnings": []}).encode()
        return self._send_bytes(400, body, "application/json", {})

    def _place(self, item: dict[str, Any], href: str) -> dict[str, Any]:
        """Where to send an object, or that it is there."""
        return item if item["oid"] in self.hub.blobs else {**item, "actions": {"upload": {"href": href, "header": {}}}}

    def _put_blob(self, oid: str) -> None:
        if self.hub.room is not None:
            if not self.hub.room:
                return self._refuse(413, "no room")
            self.hub.room -= 1
        self.hub.blobs[oid] = self.body
        return self._send(200, {})

    # ---- ModelScope

    def _modelscope(self, parts: list[str]) -> None:
        if parts == ["users", "me"]:
            return self._data({"username": "alice"}) if self._trusted() else self._refuse(401)
        if parts[0] == "blob":
            return self._put_blob(parts[1])
        kind = (parts[1] if parts[0] == "repos" else parts[0]).removesuffix("s")
        if len(parts) == 1 and self.command == "POST":
            asked = json.loads(self.body)
            owner = asked.get("Path") or asked.get("Owner") or "alice"
            return self._create(kind, f"{owner}/{asked['Name']}", asked)
        id = "/".join(parts[2:4] if parts[0] == "repos" else parts[1:3])
        repo = self._repo(kind, id)
        if repo is None:
            return None
        action = parts[4:] if parts[0] == "repos" else parts[3:]
        if self.query.get("Revision", "master") != "master":
            return self._refuse(404)
        if action[:1] == ["commit"]:
            return self._modelscope_commit(repo)
        if action[-1:] == ["batch"]:
            asked = json.loads(self.body)["objects"]
            places = [self._place(one, f"{self.hub.url}/api/v1/blob/{one['oid']}") for one in asked]
            return self._data({"objects": places})
        if action == ["repo"]:
            path = self.query["FilePath"]
            return self._file(path, repo.files[path], {}) if path in repo.files else self._refuse(404)
        if action in (["repo", "files"], ["repo", "tree"]):
            return self._data({"Files": [self._modelscope_entry(path, data) for path, data in repo.files.items()]})
        return self._data({"Name": id.split("/")[1], "Path": id.split("/")[0], "Visibility": 1 if repo.private else 5})

    def _modelscope_entry(self, path: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        name = path.rsplit("/", 1)[-1]
        return {"Path": path, "Name": name, "Type": "blob", "Size": len(data), "Sha256": digest, "Revision": COMMIT}

    def _modelscope_commit(self, repo: Repo) -> None:
        if not self._trusted():
            return self._refuse(403)
        asked = json.loads(self.body)
        repo.commits.append(asked["commit_message"])
        for action in asked["actions"]:
            normal = action["type"] == "normal"
            data = base64.b64decode(action["content"]) if normal else self.hub.blobs[action["sha256"]]
            repo.files[action["path"]] = data
        return self._data({"oid": COMMIT})

    def _data(self, value: Any) -> None:
        self._send(200, {"Code": 200, "Success": True, "Message": "", "Data": value, "data": value})

    # ---- both

    def _trusted(self) -> bool:
        return TOKEN in (self.headers.get("Authorization") or "") or TOKEN in (self.headers.get("Cookie") or "")

    def _repo(self, kind: str, id: str) -> Repo | None:
        """The repository, or None after the refusal was sent."""
        given = (self.headers.get("Authorization") or "") + (self.headers.get("Cookie") or "")
        if given and not self._trusted():
            self._refuse(401, message="Invalid credentials in Authorization header")
            return None
        repo = self.hub.repos.get((kind, id))
        if repo is None or (repo.private and not self._trusted()):
            self._refuse(404 if self._trusted() or repo is None else 401, "RepoNotFound")
            return None
        return repo

    def _create(self, kind: str, id: str, asked: dict[str, Any]) -> None:
        if not self._trusted():
            return self._refuse(401)
        if (kind, id) in self.hub.repos:
            return self._send_bytes(409, json.dumps({"url": f"{self.hub.url}/{id}"}).encode(), "application/json", {})
        private = bool(asked.get("private")) or asked.get("visibility") == "private" or asked.get("Visibility") == 1
        self.hub.repos[kind, id] = Repo(private=private)
        return self._send(200, {"url": f"{self.hub.url}/{id}", "name": id, "Code": 200, "Data": {}})

    def _file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        digest = hashlib.sha256(data).hexdigest()
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted and self.command == "GET":
            self.hub.ranges.append(f"{path} {wanted}")
        part = data[start:]
        self.send_response(206 if wanted else 200)
        for name, value in {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.cut.pop(path, None)
        if limit is not None and limit < len(part):
            self.wfile.write(part[:limit])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(part)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        body = json.dumps({"error": message or code, "Code": status, "Message": message or code, "Success": False})
        self._send_bytes(status, body.encode(), "application/json", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, value: Any, kind: str = "application/json") -> None:
        self._send_bytes(status, json.dumps(value).encode(), kind, {})

    def _send_bytes(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
