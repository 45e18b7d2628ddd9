"""The served model: saved, loaded and checked, asked from the command line and over HTTP."""
