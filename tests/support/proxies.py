"""nginx and HAProxy as the ingress before a gateway, with the settings that the chart's annotations ask for.

Debian's packages `nginx-light` and `haproxy`, which scripts/proxy-tools.sh installs. A test is left out without them.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cloudach_service.processes import die_with_parent

from .processes import ROOT

_ANNOTATIONS = ROOT / "charts" / "cloudach" / "templates" / "ingress" / "_annotations.tpl"
_VALUES = {"$seconds": "960", "$bytes": "10485760"}  # of the chart's defaults
_DIRECTIVES = {  # what ingress-nginx makes of an annotation
    "proxy-buffering": "proxy_buffering {};",
    "proxy-request-buffering": "proxy_request_buffering {};",
    "proxy-http-version": "proxy_http_version {};",
    "proxy-read-timeout": "proxy_read_timeout {}s;",
    "proxy-send-timeout": "proxy_send_timeout {}s;",
    "proxy-body-size": "client_max_body_size {};",
    "proxy-next-upstream": "proxy_next_upstream {};",
}


def ingress_annotations(of: str) -> dict[str, str]:
    """The annotations that begin with `of`, as the chart sets them by default."""
    found = {}
    for name, written in re.findall(rf"^{re.escape(of)}/([\w-]+): (.+)$", _ANNOTATIONS.read_text(), re.MULTILINE):
        value = re.sub(r"\{\{ (?:quote )?(\$\w+) \}\}", lambda variable: _VALUES[variable[1]], written)
        found[name] = re.sub(r"\s+#.*", "", value).strip('"')
    assert found, f"the chart has no annotations of {of}"
    return found


@contextmanager
def nginx(gateway: str, folder: Path, port: int) -> Iterator[str]:
    """One worker, which keeps one connection to the gateway for all of its clients."""
    program = _found("nginx", "nginx-light")
    directives = "\n".join(
        _DIRECTIVES[name].format(value) for name, value in ingress_annotations("nginx.ingress.kubernetes.io").items()
    )
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
            uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
            upstream gateway {{ server {_address(gateway)}; keepalive 1; }}
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://gateway;
                    proxy_set_header Host $host;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_upgrade;
                    {directives}
                }}
            }}
        }}""")
    with _running([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def haproxy(gateway: str, folder: Path, port: int) -> Iterator[str]:
    """One thread and one connection to the gateway, which its clients share."""
    program = _found("haproxy", "haproxy")
    seconds = ingress_annotations("haproxy.org")
    (folder / "haproxy.cfg").write_text(f"""
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client {seconds["timeout-client"]}
    timeout server {seconds["timeout-server"]}
    http-reuse always
frontend clients
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    server one {_address(gateway)} maxconn 1 pool-max-conn 1
""")
    with _running([program, "-db", "-f", str(folder / "haproxy.cfg")], port):
        yield f"http://127.0.0.1:{port}"


PROXIES = {"nginx": nginx, "haproxy": haproxy}


def _found(name: str, package: str) -> str:
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"needs {name} (Debian, Ubuntu: apt-get install {package})")
    return program


def _address(url: str) -> str:
    return url.removeprefix("http://")


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, preexec_fn=die_with_parent())
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command[0]} does not listen"
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)
