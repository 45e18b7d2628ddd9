"""Notebook runs through papermill: parameters, the record of each run, reports and their index."""
