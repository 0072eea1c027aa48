"""KubeRay's serveConfigV2 names this module as `import_path`. It builds one model's Serve application.

RayServices of running Models name this module by its path, so it stays where it is.

Neither replica counts nor drain times are among its args. Those stand in the config's `deployments`, where a change of
them restarts no replica.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .replica.adapters import Lora
from .replica.app import App


class Args(BaseModel):
    """These are the controller's args. They are refused as a whole when a field is wrong or unknown.

    Serve shows the message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["vllm", "sim"]
    name: str = Field(min_length=1, description="what the engine answers to; the deployment is named after it")
    cpus: float = Field(1.0, gt=0, description="of a simulator's replica")
    options: dict[str, Any] = Field(description="an LLMConfig's fields, or the simulator's settings")
    lora: Lora | None = Field(None, description="LoRA adapters that every replica loads before it is asked")

    @model_validator(mode="after")
    def _adapters_lie_somewhere(self) -> Args:
        if self.engine == "vllm" and self.lora is not None:
            self.lora.of_weights()
        return self


def app(raw: dict[str, Any]) -> App:
    """Checks the controller's args and returns the plan of the Serve application. Raises pydantic's ValidationError."""
    args = Args.model_validate(raw)
    options = dict(args.options)
    if args.engine == "sim":
        options = {"models": [args.name], **options}
    else:
        # With a number here, Ray adds no autoscaling of its own; what counts stands in the config's `deployments`.
        options["deployment_config"] = {
            "num_replicas": 1,
            "max_constructor_retry_count": 3,
            **options.get("deployment_config", {}),
        }
    lora = args.lora.model_dump(exclude_none=True) if args.lora is not None else None
    return App(args.name, args.name, args.engine, 1, args.cpus, 0, 60.0, options, lora)


def build(args: dict[str, Any]) -> Any:
    """Builds a Serve application with the one deployment `LLMServer:<name>` or `Simulator:<name>`.

    Raises pydantic's ValidationError, RouterMissing.
    """
    planned = app(args)
    require_router(planned.options)

    from .applications import build as build_app

    return build_app(planned)


class RouterMissing(Exception):
    """The image lacks what the Model's routing needs. Ray itself would come up and answer each request with 503."""


def require_router(options: dict[str, Any]) -> None:
    """Checks that the image has what these options' request router needs. Raises RouterMissing."""
    router = options.get("deployment_config", {}).get("request_router_config", {}).get("request_router_class", "")
    if router.endswith(":KVAwareRouter") and find_spec("dynamo") is None:
        raise RouterMissing(
            "spec.routing: kvAware needs the package ai-dynamo-runtime in the engine's image; name one that has it in "
            "spec.image, or choose balanced or prefixAware"
        )
