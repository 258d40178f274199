"""``python -m jupyter_cortex.gateway``: the local environment's gateway, as the operator starts it; with ``--alone`` it starts no operator."""

from __future__ import annotations

import logging
import sys
import time

from ..core.errors import CortexError
from ..core.settings import Settings
from ..operator.home import Home
from ..operator.processes import Slot
from ..serving.artifacts import Artifacts
from . import server
from .app import Parts, create_app
from .buffers import keep_in_hand
from .connections import Limits
from .watch import Watch


def hosts(settings: Settings, chain_address: str) -> frozenset[str]:
    """Names this gateway answers to; any when a call token keeps strangers out, since then a rebound name gains nothing."""
    if settings.call_token or (settings.insecure and not settings.loopback):
        return frozenset()
    return frozenset({"127.0.0.1", "localhost", "[::1]", settings.host.lower(), chain_address} - {""})


def main() -> int:
    """Serve until SIGTERM. Returns an exit status."""
    keep_in_hand()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings.read()
    home = Home(settings.home)
    home.make()
    try:
        config = home.config(host=settings.host, port=settings.port)
        if not settings.loopback and not settings.call_token and not settings.insecure:
            raise CortexError("listening beyond loopback wants JUPYTER_CORTEX_CALL_TOKEN (or JUPYTER_CORTEX_INSECURE=true)")
        public = server.public_socket(settings.host, config.port)
    except CortexError as error:
        logging.error("%s", error.message)
        return 1
    chained, chain = server.chain_socket(config.chain_address, public)
    server.write_chain(home.run, {**chain, "token": config.internal})
    operator = Slot(home.run, "operator")
    started = float("-inf")

    def look() -> int | None:
        """See that there is an operator; its process id. One that keeps ending is not started again sooner than after 2 s, but the first at once: it
        may die when this gateway has only just come."""
        nonlocal started
        from ..operator.local import start_operator, stopping

        if operator.pid() is None and not stopping(home) and time.monotonic() - started > 2.0:
            started = time.monotonic()
            start_operator(settings, home)
        return operator.pid()

    if "--alone" not in sys.argv[1:]:
        server.watch(look)
    if settings.access_log:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(server.AccessFormatter())
        access = logging.getLogger("uvicorn.access")
        access.addHandler(handler)
        access.propagate = False
    parts = Parts(
        redis_url=settings.redis_url or home.redis_url(),
        token=config.token,
        internal_token=config.internal,
        call_token=settings.call_token,
        hosts=hosts(settings, config.chain_address),
        max_body=settings.max_body_bytes,
        max_queued=settings.max_queued,
        max_polls=settings.max_polls,
        memory_watermark=settings.memory_watermark,
        store_wait=settings.store_wait,
        artifacts=Artifacts(home.artifacts, settings.artifacts),
    )
    watch = Watch(parts.redis_url)
    door = create_app(parts, watch)

    def stop() -> None:
        watch.close()
        door.end_waits()

    limits = Limits(settings.max_connections, settings.client_timeout)
    server.serve(door, [sock for sock in (public, chained) if sock], limits=limits, access_log=settings.access_log, on_stop=stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
