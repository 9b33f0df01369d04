"""Where a bundle runs that is not this process: emulators, boards over ssh, measured and estimated latency."""
