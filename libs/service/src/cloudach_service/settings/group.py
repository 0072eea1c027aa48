"""The base of all settings, and the kinds of values that they share."""

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
"""At most 30 years: operating systems refuse timers beyond that."""

Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, AfterValidator(_host)]

FOLDER_OR_NAME = "folder or name"
"""In a field's metadata: a local folder if it begins with `/`, `./`, `../` or `~`, else the name of something else."""

PASSED_ON = "passed on"
"""In the metadata of a top-level field: settings of another service, which takes `${NAME}` in them from the environment
by itself. They are checked here, and stay as they are, so that no secret gets into a file that is written from them."""
