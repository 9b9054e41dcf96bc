"""An encoder that keeps what it encoded, on disk: benchmarks ask the same texts of every new classifier."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError
from serac_gateway.models.encoders.base import Encoder

_DIGEST_BYTES = 16


class CachedEncoder(Encoder):
    """Gives the vectors of another encoder, and asks it once a text. Not for timings."""

    def __init__(self, encoder: Encoder, file: Path) -> None:
        """Begin with what `file` holds, if it is there.

        Raises:
            ConfigError: The file is damaged.
        """
        self._encoder = encoder
        self._file = file
        self._lock = threading.Lock()
        self._vectors: dict[bytes, Vectors] = {}
        if file.exists():
            try:
                with np.load(file) as stored:
                    digests, vectors_ND = stored["digests"], stored["vectors"]
            except (OSError, ValueError, KeyError, EOFError) as exc:
                raise ConfigError(
                    f"the vectors in {str(file)!r} are damaged ({exc}); delete the file"
                ) from exc
            self._vectors = dict(zip((digest.tobytes() for digest in digests), vectors_ND, strict=True))
        self._known = len(self._vectors)

    @property
    def width(self) -> int:
        """The encoder's own."""
        return self._encoder.width

    @property
    def fingerprint(self) -> str:
        """The encoder's own: the vectors are the same."""
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        digests = [hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in texts]
        missing = {
            digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._vectors
        }
        if missing:
            vectors_MD = self._encoder.encode(list(missing.values()))
            with self._lock:
                self._vectors.update(zip(missing, vectors_MD, strict=True))
        if not digests:
            return np.empty((0, self.width), dtype=np.float32)
        return np.stack([self._vectors[digest] for digest in digests])

    def save(self) -> None:
        """Write all vectors, if there are new ones; another process's are replaced, not torn."""
        if len(self._vectors) == self._known:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".part.npz")
        digests = np.frombuffer(b"".join(self._vectors), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
        np.savez(temporary, digests=digests, vectors=np.stack(list(self._vectors.values())))
        temporary.replace(self._file)


@contextmanager
def cached(encoder: Encoder, folder: Path) -> Iterator[CachedEncoder]:
    """`encoder` with the memory in `folder`, which is saved at the end, also of an interrupted run."""
    remembering = CachedEncoder(encoder, folder / f"{encoder.fingerprint.replace('/', '_')}.npz")
    try:
        yield remembering
    finally:
        remembering.save()
