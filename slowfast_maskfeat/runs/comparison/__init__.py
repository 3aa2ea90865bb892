"""Comparison of pre-training methods: same data, network, budget and seeds; one page of results.

A comparison is planned (`plan`) from a recipe (`recipe`) and the table of methods (`methods`),
made piece by piece (`execute`), read from the logs of its pieces (`results`) and written as a page
(`report`).
"""

from __future__ import annotations

from slowfast_maskfeat.runs.comparison.estimate import estimate_minutes
from slowfast_maskfeat.runs.comparison.methods import METHODS
from slowfast_maskfeat.runs.comparison.recipe import read_recipe
from slowfast_maskfeat.runs.comparison.study import Programs, run_comparison

__all__ = ["METHODS", "Programs", "estimate_minutes", "read_recipe", "run_comparison"]
