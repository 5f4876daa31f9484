"""A laboratory for the optimisation dynamics of neural networks.

The public names are in `__init__.pyi`; each is imported when it is first used, so that the command
line answers before JAX is loaded (SPEC 1 of Scientific Python).
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
