"""The master daemon: registry of hosts, catalogue of files, and who should talk to whom. No piece passes through it."""
