"""A simulation of the whole daemon, with simulated clocks and injected faults."""
