"""Which keys the edit store has in Redis, and what stands in each."""

from __future__ import annotations

import hashlib

from serac_gateway.domain.edits import EditState, check_edit_id, check_namespace
from serac_gateway.stores.records import Idempotency

SCHEMA = "serac:schema"
"""String: the version of this layout."""

SCHEMA_VERSION = 2

MIGRATING = "serac:migrating"
"""String with a time to live: which gateway brings the layout up to date."""

BACKUP_SECRET = "serac:backup-secret"
"""String: 32 random bytes, the key of backups' seals where none is configured."""

NAMESPACES = "serac:namespaces"
"""Set: every namespace that ever tried a commit, entered before its first one."""


class NamespaceKeys:
    """The keys of one namespace. Its name is their hash tag, so that one commit stays on one cluster slot.

    The log holds no content, only what happened to which version and a digest, and is read together with the
    versions: an edit's content can be purged and its log entries stay as they are.
    """

    def __init__(self, namespace: str) -> None:
        """Derive the keys.

        Raises:
            InvalidRequestError: The namespace breaks the rules, so it could break out of its keys, too.
        """
        self._prefix = f"serac:{{{check_namespace(namespace)}}}"
        self.current = f"{self._prefix}:current"
        """Hash: edit id to the JSON record of its current version."""
        self.vectors = f"{self._prefix}:vectors"
        """Hash: edit id to the vectors of its current version (MessagePack)."""
        self.ids = f"{self._prefix}:ids"
        """Sorted set, all scores 0: every edit id, in lexicographic order."""
        self.log = f"{self._prefix}:log"
        """Stream: an entry a change, with the fields that log_chain.py describes."""
        self.head = f"{self._prefix}:head"
        """Hash: log_id, digest and length of the log, as the last commit left it."""
        self.proposals = f"{self._prefix}:proposals"
        """Hash: proposal id to revision and JSON of its head."""
        self.proposed = f"{self.proposals}:changes"
        """Hash: proposal id to the JSON of its changes; gone once they are committed."""
        self.proposed_edits = f"{self.proposals}:edits"
        """Sorted set, all scores 0: "edit-id proposal-id", so that a purge finds what it must delete."""
        self.proposal_ids = f"{self.proposals}:ids"
        """Sorted set, all scores 0: every proposal id, which sorts by time."""
        self.open_proposals = f"{self.proposals}:open"
        """Sorted set like `proposal_ids`: those that are open."""

    def versions(self, edit_id: str) -> str:
        """List: salt and JSON record of every version; version n is element n - 1.

        Only ever appended to, but for a purge, which leaves tombstones without a salt.
        """
        return f"{self._prefix}:versions:{check_edit_id(edit_id)}"

    def ids_in(self, state: EditState) -> str:
        """Sorted set like `ids`: those whose current version is in `state`."""
        return f"{self.ids}:{state.value}"

    def proposal_result(self, idempotency: Idempotency | None) -> str:
        """As `result`, of the request that opened a proposal; in place of the receipt, the proposal's id."""
        return f"{self.result(idempotency)}:proposal"

    def result(self, idempotency: Idempotency | None) -> str:
        """Hash with a time to live: salted fingerprint of the request behind the key, and its receipt.

        The key is the client's text and comes in any length and shape, so only its digest is stored.
        """
        key = "" if idempotency is None else idempotency.key
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._prefix}:result:{digest}"
