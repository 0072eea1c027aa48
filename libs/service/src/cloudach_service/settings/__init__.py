"""A service's settings: one YAML file, checked field by field when the service starts.

settings = load(Settings, Path("gateway.yaml"))   # Settings is a Group
"""

from .file import ConfigError, anchored, expanded, load, parse, problems
from .group import FOLDER_OR_NAME, Group, Host, Port, Seconds
from .text import BaseUrl, MediaDomain, Name, Secret, base_url, header_text

__all__ = [
    "FOLDER_OR_NAME",
    "BaseUrl",
    "ConfigError",
    "Group",
    "Host",
    "MediaDomain",
    "Name",
    "Port",
    "Seconds",
    "Secret",
    "anchored",
    "base_url",
    "expanded",
    "header_text",
    "load",
    "parse",
    "problems",
]
