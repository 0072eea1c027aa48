"""Every check of admission, in the order in which they are asked. A new check is one file here and one row below.

`scripts` puts their Lua into the scripts, `local` asks them while Redis is away, and `refusals` finds their errors.
A check that must know more of a request adds a field to grants.Ask. A check with a setting adds it to rules.Rules. A
check with a limit for each API key adds it to key_records.KeyLimits.
"""

from ..check import Check
from .disabled import DISABLED
from .expired import EXPIRED
from .guided import GUIDED
from .known import KNOWN
from .model import MODEL
from .size import SIZE
from .streams import STREAMS
from .windows import WINDOWS

CHECKS: tuple[Check, ...] = (
    KNOWN,  # the key exists, and this is its secret
    EXPIRED,
    DISABLED,
    MODEL,  # the key may use the model
    SIZE,  # the request fits into the key's tokens a minute at all
    GUIDED,  # guided requests of the tenant at a time
    STREAMS,  # requests of the key at a time
    WINDOWS,  # requests and tokens a minute
)

__all__ = ["CHECKS"]
