"""The draws of Python's own generator, which golden rectangles came from."""

from __future__ import annotations

import random


class PythonDraws:
    """What the code draws with, of numpy's generator, on `random.Random`."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.random = self._random.random
        self.uniform = self._random.uniform

    def integers(self, low, high=None, endpoint=False):
        if high is None:
            low, high = 0, low
        return self._random.randint(low, high if endpoint else high - 1)
