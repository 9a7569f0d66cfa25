"""`verdigris demo`, and the workload, ledger and comparison that tests and benchmarks share with it."""
