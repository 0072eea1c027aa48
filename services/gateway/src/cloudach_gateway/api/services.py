"""The parts of the gateway that the API's paths use."""

from __future__ import annotations

from dataclasses import dataclass

from ..admission import Admission
from ..admission.salts import Salts
from ..catalog import Catalog
from ..client.intake import Intake
from ..lifecycle import Lifecycle
from ..proxy.relay import Relay
from ..settings import Settings
from ..tracing.tracer import Tracer
from .waking import Waking


@dataclass(frozen=True, slots=True)
class Services:
    """Made once, in `app`. waking: None where there is no cluster. tracer: None where no traces are made."""

    settings: Settings
    catalog: Catalog
    admission: Admission
    relay: Relay
    lifecycle: Lifecycle
    intake: Intake
    salts: Salts
    waking: Waking | None = None
    tracer: Tracer | None = None
