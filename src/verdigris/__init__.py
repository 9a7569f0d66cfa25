"""Verdigris: blue/green deployments for the PostgreSQL servers you run yourself."""

__version__ = "0.1.0"
