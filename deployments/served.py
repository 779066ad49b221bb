"""The server process: Prefect's API and UI under uvicorn, until standard input closes."""

import os
from typing import TYPE_CHECKING

from deployments.followed import followed
from so8t import lifeline

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

# The UI's pages load a tracker that asks its maker's servers whatever the server's settings say; with this the browser
# lets them talk to this server alone. They write their own styles, compile their own code and draw data: pictures.
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)


def fenced(app: "ASGIApplication") -> "ASGIApplication":
    """The application with a content security policy on every answer."""

    async def call(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        async def add(event: "ASGISendEvent") -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", []), (b"content-security-policy", POLICY)]
            await send(event)

        await app(scope, receive, add)

    return call


def main() -> None:
    """Serve with the settings of the environment."""
    import uvicorn
    from prefect.server.api.server import create_app

    from deployments.database import immediate

    config = uvicorn.Config(
        fenced(followed(create_app())),
        host=os.environ["PREFECT_SERVER_API_HOST"],
        port=int(os.environ["PREFECT_SERVER_API_PORT"]),
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        log_level="warning",
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    lifeline.at_end(stop)
    with immediate():
        server.run()


if __name__ == "__main__":
    main()
