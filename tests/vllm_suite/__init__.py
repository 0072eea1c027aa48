"""Runs vLLM's own tests of its OpenAI server against vLLM alone and against the gateway before it."""
