"""What is true and what may happen next. Pure: no I/O, no clock, no randomness of its own."""
