"""The server process: Prefect's API and UI under uvicorn, until standard input closes."""

import os
import threading


def main() -> None:
    """Serve with the settings of the environment."""
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host=os.environ["PREFECT_SERVER_API_HOST"],
        port=int(os.environ["PREFECT_SERVER_API_PORT"]),
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        log_level="warning",
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        while os.read(0, 1024):
            pass
        server.should_exit = True

    threading.Thread(target=watch, name="stop-with-stdin", daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
