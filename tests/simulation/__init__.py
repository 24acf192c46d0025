"""A simulation of the whole daemon, on turned clocks, among faults."""
