"""Other libraries' names over postgear's own clients and workers, for programs that were written for those."""
