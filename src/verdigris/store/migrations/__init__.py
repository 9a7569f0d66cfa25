"""Alembic's directory: ``versions`` holds the revisions, ``env`` connects them to the database being opened."""
