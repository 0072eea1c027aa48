"""A service reads its settings from one YAML file. They are checked field by field when the service starts.

settings = load(Settings, Path("gateway.yaml"))   # Settings is a Group

All services have the same rules; docs/configuration.md tells them to people. `${NAME}` is taken from the environment. A
name that is unknown or there twice is refused. Relative paths are relative to the file. An error names the line and the
field, and holds no secret.
"""

from .file import ConfigError, load, parse
from .group import FOLDER_OR_NAME, PASSED_ON, Group, Host, Port, Seconds
from .text import BaseUrl, MediaDomain, Name, Secret, base_url, header_text
from .variables import escaped, expanded

__all__ = [
    "FOLDER_OR_NAME",
    "PASSED_ON",
    "BaseUrl",
    "ConfigError",
    "Group",
    "Host",
    "MediaDomain",
    "Name",
    "Port",
    "Seconds",
    "Secret",
    "base_url",
    "escaped",
    "expanded",
    "header_text",
    "load",
    "parse",
]
