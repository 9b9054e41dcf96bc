"""Verifies a log by the lines of its evidence, from a gateway or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # imported by the functions that use it: with numpy it takes a quarter of a second
    from serac_gateway.stores.log_chain import LogHead


class LogNotVerifiedError(Exception):
    """The log is not what was written, or the gateway's evidence cannot be read.

    Attributes:
        log_id: The entry that does not verify; None if the error is not in an entry.
    """

    def __init__(self, message: str, log_id: str | None = None) -> None:
        super().__init__(message)
        self.log_id = log_id


class EvidenceReader:
    """Verifies a log by the lines of its evidence."""

    def __init__(self, namespace: str, expected: str | None = None) -> None:
        from serac_gateway.stores.log_verification import LogVerifier

        self._verifier = LogVerifier(namespace, expected=expected)
        self._ended = False

    def take(self, line: bytes) -> None:
        """Verify the next line. Raises LogNotVerifiedError."""
        from serac_gateway.stores.log_chain import LogHead
        from serac_gateway.stores.log_verification import BrokenLogError, Evidence

        try:
            evidence = msgspec.json.decode(line, type=Evidence)
            self._verifier.take(evidence)
        except BrokenLogError as error:
            raise LogNotVerifiedError(str(error), error.log_id) from error
        except ValueError as error:  # msgspec.DecodeError, or bytes that are no text
            raise LogNotVerifiedError(f"a line is no evidence ({error})") from error
        self._ended = isinstance(evidence, LogHead)

    def head(self) -> LogHead:
        """Where the log ends. Raises LogNotVerifiedError if the lines ended before."""
        if not self._ended:
            raise LogNotVerifiedError("the evidence ended before the head of the log")
        return self._verifier.head
