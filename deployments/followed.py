"""Lets an open page of the UI follow what it shows.

The UI asks for an artifact when its page is opened and when the user comes back to the tab (TanStack Query's "window
focus refetching"), never while the page is looked at. So its pages get a script that says now and then that the user
came back; a hidden tab asks for nothing. Without the script the page is as Prefect made it: a reload shows the newer one.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

# Where Prefect serves the version of its UI that asks so.
PAGES = "/v2"
# The page is drawn anew with what is newer; a height that stays keeps the place that is read.
SCRIPT = b"""<script>
setInterval(() => {
  if (!/\\/artifacts|tab=Artifacts/.test(location.href)) return;
  const kept = document.querySelector("[role=tabpanel][data-state=active]")?.parentElement;
  if (kept) kept.style.minHeight = kept.offsetHeight + "px";
  window.dispatchEvent(new Event("visibilitychange"));
}, 10000);
</script>"""
# With these the answer may be compressed, or say that the page is the one which the browser has.
ABRIDGING = (b"accept-encoding", b"if-none-match", b"if-modified-since")
OF_THE_FILE = (b"content-length", b"etag", b"last-modified")


def followed(app: "ASGIApplication") -> "ASGIApplication":
    """The application with the script in the pages of its UI."""

    async def call(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        if not _asks_for_a_page(scope):
            await app(scope, receive, send)
            return
        body = bytearray()
        start: ASGISendEvent | None = None

        async def add(event: "ASGISendEvent") -> None:
            nonlocal start
            if event["type"] == "http.response.start":
                start = event
                return
            assert start is not None
            assert event["type"] == "http.response.body"
            body.extend(event.get("body", b""))
            if not event.get("more_body"):
                whole = bytes(body).replace(b"</head>", SCRIPT + b"</head>", 1)
                await send(_with_length(start, len(whole)))
                await send({"type": "http.response.body", "body": whole, "more_body": False})

        asked = [(name, value) for name, value in scope["headers"] if name not in ABRIDGING]
        await app({**scope, "headers": asked}, receive, add)

    return call


def _with_length(start: "ASGISendEvent", length: int) -> "ASGISendEvent":
    assert start["type"] == "http.response.start"
    kept = [(name, value) for name, value in start.get("headers", []) if name not in OF_THE_FILE]
    start["headers"] = [*kept, (b"content-length", str(length).encode("ascii"))]
    return start


def _asks_for_a_page(scope: "Scope") -> bool:
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    path, accepted = scope["path"], dict(scope["headers"]).get(b"accept", b"")
    return (path == PAGES or path.startswith(f"{PAGES}/")) and b"text/html" in accepted
