"""The daemon as a process of the operating system: its clock, its signals, its service manager."""
