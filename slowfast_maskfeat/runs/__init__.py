"""Commands from end to end: train, test, probe, extract, compare, draw, report."""
