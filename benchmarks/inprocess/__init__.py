"""In-process calls: servegraph and MLRun, in alternating subprocesses."""
