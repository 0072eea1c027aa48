"""Stands in for `tests/utils.py` of vLLM's source: its servers come from the run that started this test session."""

from vllm_suite_plugin import ROCM_EXTRA_ARGS, VLLM_PATH, RemoteOpenAIServer, multi_gpu_only, requires_fp8

__all__ = ["ROCM_EXTRA_ARGS", "VLLM_PATH", "RemoteOpenAIServer", "multi_gpu_only", "requires_fp8"]
