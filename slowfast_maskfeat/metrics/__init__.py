"""Metrics: top-k accuracy of clips and videos, mean average precision of boxes."""
