"""Train and evaluation loops, the optimizer step, and the processes of a run."""
