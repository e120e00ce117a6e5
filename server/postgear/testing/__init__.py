"""What applications' tests use: a queue in memory, real databases and servers, as fixtures of a pytest plugin.

``plugin`` has the fixtures; ``queue`` and ``memory`` the queue in memory; ``processes`` what really runs. Not for postgear's
own tests, which want servers.
"""
