"""The same training step in several processes, its collectives counted: see `compare`."""
