"""Who does what: workers, clients and the jobs in memory. No socket, no clock, no await.

The shell (``daemon``) calls methods with what came in and drains the plain lists in which the Dispatcher leaves what is to go
out: bytes in ``Peer.out``, and for the store ``submits``, ``finishes``, ``releases`` and ``requests``.
"""
