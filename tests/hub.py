"""A stand-in for the Hugging Face Hub on this machine, for the real client (`huggingface_hub`).

It keeps repositories in memory, each a set of commits with branches and tags, and speaks the part
of the Hub's HTTP interface that publishing and fetching use: who am I, create, preupload, LFS
upload, commit, branch, tag, tree, info, and resolve with the redirect of large files. Answers
without an `X-Xet-Hash` header, so the client fetches over plain HTTP; for uploads the client asks
nobody, so there `HF_HUB_DISABLE_XET` has to be set.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".png")  # as the `.gitattributes` of a new repository has it
LICENCES = ("apache-2.0", "cc-by-4.0", "cc-by-nc-sa-4.0", "mit")
TOKENS = {"hf_write": "write", "hf_read": "read"}
USER = "someone"


@dataclass(frozen=True)
class File:
    """A file of a commit. oid: sha256 of a large one, git's blob id of another."""

    oid: str
    large: bool
    size: int


@dataclass
class Repo:
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def sha(self, revision: str) -> str | None:
        known = self.branches.get(revision) or self.tags.get(revision)
        return known or (revision if revision in self.commits else None)

    def commit(self, branch: str, files: dict[str, File]) -> str:
        content = f"{self.branches.get(branch)} {sorted(files.items(), key=lambda x: x[0])}"
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Refused(Exception):
    """An answer other than 200: status, the Hub's error code, its message."""


def blob_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubStandIn:
    """Serves on loopback within a `with`; `address` is for `HF_ENDPOINT`.

    requests: (method, path) of all that was asked. cut: break off within every file that is
    fetched. uploads_left: how many large files it takes before it refuses one (None: all).
    """

    def __init__(self, cut: bool = False) -> None:
        self.cut = cut
        self.uploads_left: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> "HubStandIn":
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            hub = stand_in

            def do_any(self) -> None:
                answer(self)

            do_HEAD = do_GET = do_POST = do_PUT = do_any

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def place(self, repo: str, revision: str, name: str, content: bytes) -> None:
        """Put a small file there without any uploading, at a revision of that very name."""
        oid = hashlib.sha256(content).hexdigest()
        self.blobs[oid] = content
        files = self.repos.setdefault(repo, Repo()).commits.setdefault(revision, {})
        files[name] = File(oid, large=False, size=len(content))

    def content(self, repo: str, revision: str, name: str) -> bytes:
        found = self.repos[repo]
        return self.blobs[found.commits[found.sha(revision)][name].oid]

    def names(self, repo: str, revision: str = "main") -> list[str]:
        found = self.repos[repo]
        return sorted(found.commits[found.sha(revision)])

    def find(self, name: str, revision: str | None = None) -> tuple[Repo, str | None]:
        if name not in self.repos:
            raise Refused(404, "RepoNotFound", "Repository not found")
        repo = self.repos[name]
        sha = repo.sha(unquote(revision)) if revision else None
        if revision and sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha


# --- requests --------------------------------------------------------------------------


def answer(request: BaseHTTPRequestHandler) -> None:
    """Find the route of a request, check the token, and send what the route returns."""
    hub: HubStandIn = request.hub
    path = urlsplit(request.path).path
    body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = read_chunks(request.rfile)
    hub.requests.append((request.command, path))
    try:
        role = role_of(request.headers.get("Authorization"))
        for method, pattern, route, needs in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and request.command in method:
                if needs and role is None:
                    raise Refused(401, "", "Invalid username or password.")
                if needs == "write" and role != "write":
                    raise Refused(403, "", "You don't have the required permissions")
                repo = hub.repos.get(found[1]) if found.groups() else None
                if repo and repo.private and role is None:
                    raise Refused(401, "RepoNotFound", "Repository not found")
                with hub.lock:
                    status, headers, content = route(hub, body, *found.groups())
                break
        else:
            raise Refused(404, "", f"There is no {request.command} {path}")
    except Refused as refused:
        status, code, message = refused.args
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        content = b"" if request.command == "HEAD" else as_json({"error": message})[2]
    request.send_response(status)
    for name, value in {"Content-Length": len(content), **headers}.items():
        request.send_header(name, str(value))
    request.end_headers()
    if request.command != "HEAD":
        fetched = request.command == "GET" and not path.startswith("/api/")
        request.wfile.write(content[: len(content) // 2] if hub.cut and fetched else content)
    request.close_connection = True


def read_chunks(stream) -> bytes:
    chunks = []
    while size := int(stream.readline(), 16):
        chunks.append(stream.read(size))
        stream.readline()
    return b"".join(chunks)


def role_of(authorization: str | None) -> str | None:
    if not authorization:
        return None
    role = TOKENS.get(authorization.removeprefix("Bearer "))
    if role is None:
        raise Refused(401, "", "Invalid credentials in Authorization header")
    return role


def as_json(value: object, status: int = 200) -> tuple[int, dict, bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def whoami(hub: HubStandIn, body: bytes):
    return as_json({"type": "user", "name": USER, "orgs": []})


def create(hub: HubStandIn, body: bytes):
    asked = json.loads(body)
    owner = asked["organization"] or USER
    name = f"{owner}/{asked['name']}"
    if name in hub.repos:
        return as_json({"error": "You already created this", "url": f"{hub.address}/{name}"}, 409)
    if owner != USER:
        raise Refused(403, "", f'You don\'t have the rights to create a model under "{owner}"')
    attributes = "".join(f"*{suffix} filter=lfs\n" for suffix in LARGE).encode()
    repo = hub.repos[name] = Repo(private=asked.get("visibility") == "private")
    repo.commit("main", {".gitattributes": keep(hub, attributes)})
    return as_json({"url": f"{hub.address}/{name}", "id": name})


def keep(hub: HubStandIn, content: bytes) -> File:
    oid = blob_oid(content)
    hub.blobs[oid] = content
    return File(oid, large=False, size=len(content))


def validate_yaml(hub: HubStandIn, body: bytes):
    content = json.loads(body)["content"]
    data = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)[1])
    if data.get("license", LICENCES[0]) not in LICENCES:
        return as_json({"errors": [{"message": '"license" must be one of ...'}]}, 400)
    return as_json({"errors": [], "warnings": []})


def preupload(hub: HubStandIn, body: bytes, name: str, revision: str):
    repo, sha = hub.find(name, revision)
    there = repo.commits[sha]
    return as_json(
        {
            "files": [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": there[f["path"]].oid if f["path"] in there else None,
                }
                for f in json.loads(body)["files"]
            ]
        }
    )


def lfs_batch(hub: HubStandIn, body: bytes, name: str):
    hub.find(name)
    objects = []
    for asked in json.loads(body)["objects"]:
        known = asked["oid"] in hub.blobs
        upload = {"upload": {"href": f"{hub.address}/lfs/{asked['oid']}"}}
        objects.append(asked | ({} if known else {"actions": upload}))
    return as_json({"transfer": "basic", "objects": objects})


def lfs_put(hub: HubStandIn, body: bytes, oid: str):
    if hub.uploads_left == 0 or hashlib.sha256(body).hexdigest() != oid:
        raise Refused(400, "", "The content does not match its checksum")
    if hub.uploads_left:
        hub.uploads_left -= 1
    hub.blobs[oid] = body
    return as_json({})


def commit(hub: HubStandIn, body: bytes, name: str, branch: str):
    repo, sha = hub.find(name, branch)
    if branch not in repo.branches:
        raise Refused(404, "RevisionNotFound", f"{branch} is no branch")
    files = dict(repo.commits[sha])
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            files[value["path"]] = keep(hub, base64.b64decode(value["content"]))
        elif item["key"] == "lfsFile":
            if value["oid"] not in hub.blobs:
                raise Refused(400, "", f"{value['path']} was never uploaded")
            files[value["path"]] = File(value["oid"], large=True, size=value["size"])
        elif item["key"] == "deletedFile" and files.pop(value["path"], None) is None:
            raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
    new = repo.commit(branch, files)
    return as_json({"commitUrl": f"{hub.address}/{name}/commit/{new}", "commitOid": new})


def create_branch(hub: HubStandIn, body: bytes, name: str, branch: str):
    repo, sha = hub.find(name, json.loads(body or b"{}").get("startingPoint", "main"))
    if branch in repo.branches:
        raise Refused(409, "", "Reference already exists")
    repo.branches[branch] = sha
    return as_json({})


def create_tag(hub: HubStandIn, body: bytes, name: str, revision: str):
    repo, sha = hub.find(name, revision)
    tag = json.loads(body)["tag"]
    if tag in repo.tags:
        raise Refused(409, "", "Tag reference exists already")
    repo.tags[tag] = sha
    return as_json({})


def tree(hub: HubStandIn, body: bytes, name: str, revision: str):
    repo, sha = hub.find(name, revision)
    return as_json(
        [
            {"type": "file", "path": path, "oid": file.oid, "size": file.size}
            for path, file in sorted(repo.commits[sha].items())
        ]
    )


def paths_info(hub: HubStandIn, body: bytes, name: str, revision: str):
    asked = parse_qs(body.decode())["paths"]
    return as_json(
        [row for row in json.loads(tree(hub, b"", name, revision)[2]) if row["path"] in asked]
    )


def info(hub: HubStandIn, body: bytes, name: str, revision: str | None = None):
    repo, sha = hub.find(name, revision or "main")
    siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
    return as_json({"id": name, "sha": sha, "private": repo.private, "siblings": siblings})


def resolve(hub: HubStandIn, body: bytes, name: str, revision: str, path: str):
    repo, sha = hub.find(name, revision)
    file = repo.commits[sha].get(unquote(path))
    headers = {"X-Repo-Commit": sha}
    if file is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    if file.large:
        headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": file.size}
        # Another host name, as the Hub's: the client would follow one to the same at once.
        place = hub.address.replace("127.0.0.1", "localhost")
        return 302, headers | {"Location": f"{place}/cdn/{file.oid}"}, b""
    return 200, headers | {"ETag": f'"{file.oid}"'}, hub.blobs[file.oid]


def cdn(hub: HubStandIn, body: bytes, oid: str):
    return 200, {"ETag": f'"{oid}"'}, hub.blobs[oid]


_KIND, _REPO, _REST = r"(?:models|datasets)", r"([^/]+/[^/]+)", r"([^/]+)"
# methods, path, what answers, which token it needs
ROUTES = (
    (("GET",), r"/api/whoami-v2", whoami, "read"),
    (("POST",), r"/api/repos/create", create, "write"),
    (("POST",), r"/api/validate-yaml", validate_yaml, None),
    (("POST",), rf"/api/models/{_REPO}/preupload/{_REST}", preupload, "write"),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", lfs_batch, "write"),
    (("PUT",), rf"/lfs/{_REST}", lfs_put, None),
    (("POST",), rf"/api/models/{_REPO}/commit/{_REST}", commit, "write"),
    (("POST",), rf"/api/models/{_REPO}/branch/{_REST}", create_branch, "write"),
    (("POST",), rf"/api/models/{_REPO}/tag/{_REST}", create_tag, "write"),
    (("GET",), rf"/api/{_KIND}/{_REPO}/tree/{_REST}(?:/.*)?", tree, None),
    (("GET",), rf"/api/{_KIND}/{_REPO}/revision/{_REST}", info, None),
    (("GET",), rf"/api/{_KIND}/{_REPO}", info, None),
    (("POST",), rf"/api/{_KIND}/{_REPO}/paths-info/{_REST}", paths_info, None),
    (("GET", "HEAD"), rf"(?:/datasets)?/{_REPO}/resolve/{_REST}/(.+)", resolve, None),
    (("GET", "HEAD"), rf"/cdn/{_REST}", cdn, None),
)
