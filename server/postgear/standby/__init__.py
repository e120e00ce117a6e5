"""Failover for two machines without a cluster manager: ``postgear standby``, ``postgear promote``, ``postgear rejoin``.

The rule that everything rests on: a replica promotes itself only if every commit of the primary had to wait for it. An old
primary that is cut off can then commit nothing, so it acknowledges nothing, whatever it believes itself to be.

Reading order: ``synchrony`` (does every commit wait for us?) and ``decision`` (may we promote?) are pure; ``state`` is what is
remembered over a crash; ``paths`` are the ways to hear of the primary; ``replica`` is the PostgreSQL on this machine, ``setup``
how it is made, ``rejoin`` how an old primary becomes one; ``promotion`` are the steps of a promotion; ``watch`` is the process
that ties them together, ``serving`` its server, ``pages`` what it tells over HTTP; ``command`` the command line.

docs/failover-two-machines.md says what it can and cannot guarantee.
"""
