"""``python -m verdigris``."""

from verdigris.cli import main

main()
