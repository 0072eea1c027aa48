"""OpenAI's wire format: request fields, the error envelope, server-sent events. No I/O, no web framework."""
