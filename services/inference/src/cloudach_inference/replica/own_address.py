"""This module keeps a port of Ray Serve to one address.

Ray 2.60 opens that port for each replica, for calls from other deployments, on all interfaces. It asks for no token and
unpickles what comes. So anybody who reaches it runs code of their own. No setting changes that.
"""

from __future__ import annotations

from typing import Any


def keep_to_own_address() -> None:
    """From now on this process opens that port on its node's own address only, which others use to call it."""
    from ray.serve._private import replica
    from ray.util import get_node_ip_address

    add_port = replica.add_port_to_grpc_server
    if getattr(add_port, "keeps_to_own_address", False):
        return

    def add_own_port(server: Any, address: str) -> int:
        own = get_node_ip_address()
        port: int = add_port(server, address.replace("[::]", f"[{own}]" if ":" in own else own, 1))
        return port

    add_own_port.keeps_to_own_address = True  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = add_own_port
