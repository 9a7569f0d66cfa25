"""One module per revision, oldest first; never changed once released."""
