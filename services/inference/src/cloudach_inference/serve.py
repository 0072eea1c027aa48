"""What KubeRay's serveConfigV2 names as `import_path`: one model's Serve application, from the args of the controller.

Neither replica counts nor drain times are among them: those stand in the config's `deployments`, where a change of them
restarts no replica.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .plan import App


class Args(BaseModel):
    """Refused as a whole when a field is wrong or not known; Serve shows the message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["vllm", "sim"]
    name: str = Field(min_length=1, description="what the engine answers to; the deployment is named after it")
    cpus: float = Field(1.0, gt=0, description="of a simulator's replica")
    options: dict[str, Any] = Field(description="an LLMConfig's fields, or the simulator's settings")


def app(raw: dict[str, Any]) -> App:
    """Raises pydantic's ValidationError."""
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
    return App(args.name, args.name, args.engine, 1, args.cpus, 0, 60.0, options)


def build(args: dict[str, Any]) -> Any:
    """A Serve application with the one deployment `LLMServer:<name>` or `Simulator:<name>`."""
    from .apps import build as build_app

    return build_app(app(args))
