"""This package speaks to a Kubernetes API server for gateway and controller.

`client` has the requests and `reflector` the list-and-watch. Both are the same for every service. What differs is how
bytes get to the API server: `official` sends them by the official Kubernetes client, and `light` by httpx alone.
Importing this package imports neither.
"""
