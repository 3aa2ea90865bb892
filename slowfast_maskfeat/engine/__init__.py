"""Trained weights and evaluation results leave this room: the loops, optimizer and processes."""
