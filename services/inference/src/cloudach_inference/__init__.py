"""Ray Serve deployments of vLLM, and a simulator that speaks vLLM's dialect."""
