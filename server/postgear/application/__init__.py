"""What an application uses with its own database connection. Not the server, and not a client of the Gearman protocol.

The names meant for applications are those of ``postgear`` itself: ``from postgear import enqueue``.
"""
