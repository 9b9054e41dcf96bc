"""The command `serac`."""

from serac_gateway.cli.main import main as main
