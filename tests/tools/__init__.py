"""Tools that were written for RDS, run against Verdigris as they are run against RDS."""
