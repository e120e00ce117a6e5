"""Who does what: workers, clients and the jobs in memory. No socket, no clock, no await.

The shell (``daemon``, ``exchange``) calls methods with what came in and drains what the Dispatcher leaves for it in plain lists:
bytes in ``Peer.out``, and for the store ``submits``, ``finishes``, ``results``, ``releases``, ``unused``, ``requests``,
``unresolved`` and ``progress``. ``Dispatcher`` says what each is.
"""
