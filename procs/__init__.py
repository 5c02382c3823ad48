"""One file per process, and the commands around them. `procs` imports `common`, never the reverse."""
