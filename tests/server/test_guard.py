"""Who may ask: key, Host, Origin and content type."""

from __future__ import annotations

import pytest
from servers import running, sources

from charloom.server.guard import Access

KEY = "sk-test-1234"
BODY = {"prompt": "abc", "max_tokens": 3}


@pytest.fixture(scope="module")
def locked(folders):
    """A server with a key."""
    with running(sources(folders)[:1], access=Access(key=KEY, hosts=("char.example",))) as server:
        yield server


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Basic {KEY}",
        KEY,
        "Bearer é",
    ],
)
def test_a_wrong_key(locked, given):
    """Catches a request that is answered without the key."""
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    with locked.client() as http:
        for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nothing")):
            answer = http.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/completions", "/tokenize", "/v1/trace", "/admin/reload"):
            answer = http.post(path, headers=headers, json=BODY)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_right_key(locked, scheme):
    """Catches a key that opens nothing."""
    with locked.client(headers={"Authorization": f"{scheme} {KEY}"}) as http:
        assert http.get("/v1/models").status_code == 200
        assert http.post("/v1/completions", json=BODY).status_code == 200


def test_static_files_and_health_need_no_key(locked):
    """Catches llama.cpp#10475: a browser sends no key for a page and its files."""
    with locked.client() as http:
        for path in ("/", "/static/index.html", "/health"):
            assert http.get(path).status_code == 200
        assert "charloom" in http.get("/").text
        assert http.get("/static/../app.py").status_code in (401, 404)
        assert http.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.evil.example"]
)
def test_a_foreign_host(served, host):
    """Catches DNS rebinding: a page gives its own name the address of this machine."""
    with served.client() as http:
        for answer in (http.get("/v1/models", headers={"Host": host}), http.get("/health", headers={"Host": host})):
            assert answer.status_code in (400, 403)
        answer = http.post("/v1/completions", headers={"Host": host}, json=BODY)
        assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "LOCALHOST", "127.0.0.1", "[::1]:80", "10.1.2.3:8000"])
def test_a_host_of_this_machine(served, host):
    """Catches a name of this machine that is refused."""
    with served.client() as http:
        assert http.get("/health", headers={"Host": host}).status_code == 200


def test_a_name_that_was_added(locked):
    """Catches --allowed-host without effect."""
    with locked.client(headers={"Authorization": f"Bearer {KEY}"}) as http:
        assert http.get("/v1/models", headers={"Host": "char.example:443"}).status_code == 200
        assert http.get("/v1/models", headers={"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1.evil.example"]
)
def test_a_foreign_page(served, origin):
    """Catches a page on the web that makes a browser send a POST to this machine."""
    with served.client() as http:
        for path in ("/v1/completions", "/admin/reload", "/nothing"):
            answer = http.post(path, headers={"Origin": origin}, json={})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "origin_not_allowed"
            assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_this_server(served):
    """Catches the web app of this server, refused by the server itself."""
    with served.client() as http:
        assert http.post("/v1/completions", headers={"Origin": served.url}, json=BODY).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
)
def test_another_content_type(served, kind):
    """Catches the three content types that a foreign page can send without asking."""
    with served.client() as http:
        headers = {} if kind is None else {"Content-Type": kind}
        for path in ("/v1/completions", "/admin/reload"):
            assert http.post(path, headers=headers, content=b"{}").status_code == 415
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            assert http.post("/v1/completions", headers={"Content-Type": kind}, content=b"{}").status_code == 200


def test_cors(folders):
    """Catches an origin that is allowed and cannot read, and CORS for any other."""
    page = "https://page.example"
    with running(sources(folders)[:1], access=Access(key=KEY, origins=(page,))) as served, served.client() as http:
        asking = {"Origin": page, "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "authorization,content-type"
        before = http.options("/v1/completions", headers=asking)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, page)
        sent = {"Origin": page, "Authorization": f"Bearer {KEY}"}
        answer = http.post("/v1/completions", headers=sent, json=BODY)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        refused = http.post("/v1/completions", headers={"Origin": page}, json=BODY)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, page)
        other = http.post("/v1/completions", headers=sent | {"Origin": "https://other.example"}, json=BODY)
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


def test_no_cors_by_default(served):
    """Catches an answer that any page may read."""
    with served.client() as http:
        asking = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        answers = [http.options("/v1/completions", headers=asking), http.get("/health", headers=asking)]
        assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)
