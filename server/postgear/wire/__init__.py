"""Gearman on the wire, without I/O: bytes to packets and back.

Not here: what a packet means (that is ``dispatch``) and how bytes travel (that is ``daemon`` and ``client``).
Standard library only and Python 3.9, so that these modules can be embedded where nothing else is installed.
"""
