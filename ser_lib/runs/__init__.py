"""Notebook runs: parameters, execution through papermill, the record of each run, reports and their index."""
