#!/usr/bin/env python3
"""The command `maskfeat data check-ava` by its path in the repository."""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import sys

from slowfast_maskfeat.commands.data_check_ava import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
