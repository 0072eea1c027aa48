"""Installs other people's clients, tries them against the gateway, and writes what works: docs/clients.md."""
