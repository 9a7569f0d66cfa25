"""Figures, printed beside those of peers measured in the same run. Nothing here asserts anything about time.

``uv run python -m tests.benchmarks.relay``, ``.switchover`` and ``.green``; each knows ``--help`` and ``--quick``.
"""
