"""What a session has besides its connection: how a backend is asked for it, and how another one is given it.

One module for each kind of state: the part of the question that finds it (``QUESTION``), how the answer is read, and
the pieces that make it anew. ``survey`` puts the questions together, ``replay`` the pieces.
"""
