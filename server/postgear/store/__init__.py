"""The durable queue. Only this package speaks SQL; ``postgres`` is the real store, ``memory`` the one for tests and simulation.

Both pass the same conformance suite (tests/store).
"""
