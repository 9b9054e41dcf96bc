"""`python -m serac_gateway` is `serac`."""

from __future__ import annotations

from serac_gateway.cli.main import main

if __name__ == "__main__":
    main()
