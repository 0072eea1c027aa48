"""This module has the base class of all settings, and the kinds of values that they share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Group(BaseModel):
    """Settings that belong together. Unknown names, infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def _host(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or (host.count(":") == 1):
        raise ValueError(f"{host!r} is no address to listen on; the port stands in a setting of its own")
    return host


Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A duration of at most 30 years, because operating systems refuse longer timers."""

Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, AfterValidator(_host)]

FOLDER_OR_NAME = "folder or name"
"""A field with this in its metadata is a local folder if it begins with `/`, `./`, `../` or `~`, and else a name."""

PASSED_ON = "passed on"
"""A top-level field with this in its metadata holds settings of another service, which replaces `${NAME}` by itself.
The variables are checked here, and stay as they are, so that no secret gets into a file that is written from them."""
