"""Who is answered: this machine under its own names, or who has the token; only pages of ours may change anything."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from swift.web.app import create_app
from swift.web.security import Guard
from swift.web.studio import Studio

OWN = {"x-swift": "1"}


def client_of(
    studio: Studio, host: str = "127.0.0.1", token: str | None = None, asked: str = "127.0.0.1:7860"
) -> TestClient:
    app = Guard(create_app(studio), token=token, host=host)
    return TestClient(app, base_url=f"http://{asked}", follow_redirects=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ["127.0.0.1:7860", "localhost:9000", "[::1]:7860"])
def test_this_machine_is_answered(studio: Studio, asked: str) -> None:
    assert client_of(studio, asked=asked).get("/").status_code == 200


@pytest.mark.parametrize("asked", ["evil.example", "127.0.0.1.evil.example:7860", "192.168.0.9:7860"])
def test_another_name_is_not(studio: Studio, asked: str) -> None:
    """A page of another site whose name was made to point here (DNS rebinding)."""
    assert client_of(studio, asked=asked).get("/").status_code == 403
    assert client_of(studio, asked=asked).post("/api/demo", json={}, headers=OWN).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860"},
        {**OWN, "origin": "http://evil.example"},
        {**OWN, "origin": "http://127.0.0.1:8000"},
        {**OWN, "origin": "null"},
        {**OWN, "sec-fetch-site": "cross-site"},
        {**OWN, "sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("place", ["/api/demo", "/api/jobs", "/api/command", "/api/jobs/x/stop", "/api/chat"])
def test_another_site_changes_nothing(studio: Studio, headers: dict[str, str], place: str) -> None:
    assert client_of(studio).post(place, content="{}", headers=headers).status_code == 403
    assert studio.jobs.all() == []


def test_a_page_of_ours_may(studio: Studio) -> None:
    headers = {**OWN, "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    answer = client_of(studio).post("/api/command", json={"command": "sft", "values": {}}, headers=headers)
    assert answer.status_code == 200


def test_the_token_opens_the_page_and_leaves_the_address(studio: Studio) -> None:
    client = client_of(studio, host="0.0.0.0", token="sesame", asked="gpu-box:7860")
    assert client.get("/").status_code == 401
    assert client.get("/static/page.css").status_code == 401
    assert client.get("/?token=other").status_code == 401
    assert client.post("/api/demo?token=sesame", json={}, headers=OWN).status_code == 401
    opened = client.get("/new/sft?token=sesame&lora_rank=4")
    assert opened.status_code == 303 and opened.headers["location"] == "./sft?lora_rank=4"
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert client.post("/api/command", json={"command": "sft", "values": {}}).status_code == 403
    assert client.post("/api/command", json={"command": "sft", "values": {}}, headers=OWN).status_code == 200


def test_nothing_may_frame_the_page_or_bring_scripts(studio: Studio) -> None:
    policy = client_of(studio).get("/new/sft").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("new/sft?a=1&b=中", "./new/sft?a=1&b=%E4%B8%AD"),
        ("//evil.example", "./evil.example"),
        ("https://evil.example", "./https://evil.example"),
        ("\\\\evil.example", "./%5C%5Cevil.example"),
        ("a\r\nset-cookie: x", "./a%0D%0Aset-cookie:%20x"),
    ],
)
def test_a_redirect_stays_here(studio: Studio, asked: str, place: str) -> None:
    answer = client_of(studio).get("/", params={"lang": "en", "to": asked})
    assert answer.headers["location"] == place


def test_a_proxy_that_is_named_may_show_the_page(studio: Studio) -> None:
    """Whether it takes its path off or leaves it on, and names itself as host or not; with a token, and nobody else."""
    app = Guard(create_app(studio), token="sesame", host="127.0.0.1", public_url="https://gpu.example/swift/")
    client = TestClient(app, base_url="http://127.0.0.1:7860", follow_redirects=False)  # type: ignore[arg-type]
    assert client.get("/swift/").status_code == 401
    opened = client.get("/swift/new/sft?token=sesame")
    assert opened.headers["location"] == "./sft" and "Secure" in opened.headers["set-cookie"]
    cookie = {"cookie": opened.headers["set-cookie"].partition(";")[0]}
    form = {"command": "sft", "values": {}}
    for place, origin, status in [
        ("/swift/api/command", "https://gpu.example", 200),
        ("/api/command", "https://gpu.example", 200),
        ("/api/command", "http://127.0.0.1:7860", 200),
        ("/api/command", "https://evil.example", 403),
        ("/api/command", "https://gpu.example.evil.example", 403),
    ]:
        answer = client.post(place, json=form, headers={**OWN, **cookie, "origin": origin})
        assert answer.status_code == status, (place, origin)
    assert client.get("/swift/static/page.css", headers=cookie).status_code == 200


@pytest.mark.parametrize("path", ["/etc", "/", "../..", "~root", "/proc/self"])
def test_folders_outside_are_not_shown(studio: Studio, path: str) -> None:
    client = client_of(studio)
    for place in (f"/runs?path={path}", f"/report?path={path}", f"/compare?run={path}", f"/runs/events?path={path}"):
        assert client.get(place).status_code in (404, 422), place
    assert client.get(f"/new/sft?resume={path}").status_code in (404, 422)
    query = {"command": "sft", "flag": "model_id_or_path", "typed": f"{path}/"}
    assert not [name for name in client.get("/api/suggest", params=query).json() if name.startswith(path)]


def test_a_link_that_leads_outside_is_refused(studio: Studio) -> None:
    (studio.cwd / "out").symlink_to("/etc")
    values = {"model_id_or_path": "m", "dataset": "out/passwd"}
    answer = client_of(studio).post("/api/jobs", json={"command": "sft", "values": values}, headers=OWN)
    assert answer.status_code == 422 and "outside" in answer.json()["errors"]["dataset"][0]
