"""An ASGI application that reads the request and answers a constant, under makegood's own uvicorn settings: what HTTP alone costs.

constant.py PORT
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
import uvloop

from makegood.serving import wire

BODY = (
    b'{"id":"0198c0de-0000-7000-8000-000000000000","action":"approve","promise":123.456789,"unit":"EUR","propensity":1.0,'
    b'"predictive":{"bad":0.123456789,"good":0.876543211},"reasons":[],"model":"loans@0123456789ab"}'
)
HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())],
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body, answer the constant."""
    while (await receive()).get("more_body"):
        pass
    await send(HEAD)
    await send({"type": "http.response.body", "body": BODY})


async def main(port: int) -> None:
    """Serve on a port of this machine."""
    wire.Protocol.most = wire.room()
    config = uvicorn.Config(
        app,
        http=wire.Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    sock = socket.create_server(("127.0.0.1", port), backlog=2048)
    await uvicorn.Server(config).serve([sock])


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
