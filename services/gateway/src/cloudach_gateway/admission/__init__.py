"""Admission: who may call, how often, with how many tokens and streams; and what was used in the end.

`checks` has what is asked, in order. With Redis, `script_calls` asks all of it in one round trip (`scripts`, lua/);
without Redis, `local` asks it in this process. `leases`, `settlements` and `sweep` keep the books afterwards.
"""

from .admission import Admission
from .checks.model import not_allowed
from .grants import Grant

__all__ = ["Admission", "Grant", "not_allowed"]
