import pytest
from cloudach_inference.local.failure import mend, reason

PREFIX = "(ServeReplica:m:LLMServer:m pid=14720) (EngineCore pid=15089) ERROR 11-23 00:20:16 [core.py:946] "


def test_the_engines_own_error_wins() -> None:
    log = [
        f"{PREFIX}EngineCore failed to start.",
        f"{PREFIX}Traceback (most recent call last):",
        f"{PREFIX}ValueError: To serve at least one request with the models's max seq len (8192), "
        "1.69 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB).",
        "(ServeReplica:m pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
        "ray.exceptions.RayTaskError(RuntimeError): ray::ServeReplica()",
    ]
    (line,) = reason(log, "The deployment failed to start 1 times in a row.")
    assert line.startswith("ValueError: To serve at least one request")
    assert "max_model_len" in mend([line])


def test_what_serve_says_when_the_log_is_silent() -> None:
    told = (
        "Deployment failed.\n  File x.py\nRuntimeError: Traceback (most recent call last):\n"
        "RuntimeError: Failed to create vLLM engine config: 1 validation error for VllmConfig\n"
        "  Value error, invalid literal for int() with base 10: '0.1'\n"
    )
    assert reason(["(x pid=1) INFO 11-23 00:20:16 [core.py:1] fine"], told) == [
        "RuntimeError: Failed to create vLLM engine config: 1 validation error for VllmConfig "
        "Value error, invalid literal for int() with base 10: '0.1'"
    ]


def test_the_last_lines_when_nobody_says_why() -> None:
    assert reason(["a", "", "b", "c", "d"]) == ["b", "c", "d"]
    assert mend(["d"]) == "the log has the whole story"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "cloudach_inference.replica.adapters.AdapterError: LoRA adapter 'sql': o/x: GatedRepoError: 401 Client "
            "Error",
            "adapter's",
        ),
        ("OSError: org/x is not a local folder and is not a valid model identifier", "HF_TOKEN"),
        ("RuntimeError: We couldn't connect to 'https://huggingface.co' to load the files", "network"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "too little memory"),
        ("ValueError: Unknown engine argument: frobnicate", "engine_args"),
        ("ModuleNotFoundError: No module named 'vllm'", "make engine"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("OSError: [Errno 98] Address already in use", "http_port"),
    ],
)
def test_mends(line: str, advice: str) -> None:
    assert advice in mend([line])
