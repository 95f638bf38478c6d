"""What a contract is worth: what it checks, what it would notice, what a run has shown of it.

Nothing here is needed to check a call; each tool is a module of its own, re-exported here.
"""

from ._enforcement import Enforcement, enforcement

__all__ = ["Enforcement", "enforcement"]
