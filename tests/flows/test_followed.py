"""The script in the UI's pages, and that it goes nowhere else."""

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from deployments.followed import SCRIPT, followed
from deployments.served import POLICY, fenced

PAGE = "<html><head><title>日本語</title></head><body>" + "x" * 2000 + "</body></html>"
BROWSER = {"accept": "text/html,application/xhtml+xml", "accept-encoding": "gzip"}


async def _state(request):
    return JSONResponse({"a": "</head>" * 500})


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """Static pages below /v2 and an API, compressed, as Prefect's server has them."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "index.html").write_text(PAGE, encoding="utf-8", newline="\n")
    (folder / "index.js").write_text("1;" * 1000, encoding="utf-8", newline="\n")
    app = Starlette(
        routes=[Route("/api/state", _state), Mount("/v2", StaticFiles(directory=folder, html=True))],
        middleware=[Middleware(GZipMiddleware)],
    )
    transport = httpx.ASGITransport(fenced(followed(app)))

    def ask(path, method="GET", **headers):
        async def one():
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers={**BROWSER, **headers})

        return anyio.run(one)

    return ask


def test_a_page_has_the_script_whole_and_fenced(get):
    answer = get("/v2/")
    assert answer.text == PAGE.replace("</head>", SCRIPT.decode() + "</head>")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-security-policy"] == POLICY.decode()
    assert "etag" not in answer.headers


def test_a_browser_that_has_the_page_from_before_gets_the_new_one(get):
    old = get("/v2/index.html", accept="*/*", **{"accept-encoding": "identity"})
    assert SCRIPT not in old.content
    again = get("/v2/index.html", **{"if-none-match": old.headers["etag"]})
    assert again.status_code == 200
    assert SCRIPT in again.content


def test_nothing_else_is_touched(get):
    state = get("/api/state")
    assert state.json() == {"a": "</head>" * 500}
    assert state.headers["content-encoding"] == "gzip"
    code = get("/v2/index.js", accept="*/*")
    assert SCRIPT not in code.content
    assert code.headers["etag"]
    assert get("/v2/", "HEAD").content == b""
    assert get("/v2/absent").status_code == 404
