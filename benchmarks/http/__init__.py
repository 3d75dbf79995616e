"""Servers over HTTP: the same model in each, one worker, load by wrk."""
