"""From a file or frame to features: sources, profile, outcome, leaks, splits, prepare (fit), transform (serve)."""
