"""The command line: one verb for the whole job, and one for each of its stages."""
