"""Talking to a Gearman server from this side of the socket."""
