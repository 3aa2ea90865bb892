"""Figures of merit, and the log they go to, leave this room."""
