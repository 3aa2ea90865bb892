"""`python -m slowfast_maskfeat` is `maskfeat`, for torchrun and for machines without its script."""

from __future__ import annotations

import sys

from slowfast_maskfeat.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
