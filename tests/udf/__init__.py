"""Tests of the functions for MariaDB and MySQL."""
