"""What the benchmarks share; a folder of its own, so that ``make bench`` runs only what measures something."""
