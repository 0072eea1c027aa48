"""OpenAI's wire format: request fields, the error envelope, server-sent events. Pure: no I/O, no web framework."""
