"""How much memory a piece of work takes at its highest."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Resident memory of this process above that at construction; Linux only, elsewhere it is 0."""

    def __init__(self) -> None:
        try:
            _CLEAR.write_text("5")  # resets VmHWM: proc(5)
        except OSError:
            self._begin: int | None = None
        else:
            self._begin = _high_water_bytes()

    def bytes_above_begin(self) -> int:
        """The highest since then."""
        return 0 if self._begin is None else max(0, _high_water_bytes() - self._begin)


def _high_water_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    return 0
