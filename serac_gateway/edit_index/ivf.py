"""Approximate search in inverted lists: a query reads the lists whose centroids are nearest to it.

Everything that takes long (training, assigning rows to lists, merging) runs inside faiss, without Python's
global lock, on the one thread that calls it. A segment never changes once it is made, so any number of
threads search it. Centroids have two levels: to find a row's list among L takes some 5 √L comparisons in
place of L (a vocabulary tree: Nistér and Stewénius, 2006), which makes building ten times as quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.vectors import Vectors

Precision = Literal["fp32", "fp16", "int8"]
"""How a component of a vector is kept: as it came (4 bytes), in half precision (2), or in 8 bits."""

MAX_FORMS = 2**16
"""Of an edit. A row's id in faiss is its key times this, plus its form."""

_TRAINING_ROWS_PER_LIST = 40
_ROUNDS = 8
"""Of k-means, at each level; one more over both levels follows."""
_CELLS_READ = 4
"""Cells of the upper level in which a row's list is looked for."""
_SPREAD = 4.5
"""Standard deviations of a component, each way, that 8 bits reach over."""
_MOST_OUTSIDE = 1e-3
"""Share of components."""
_CHUNK = 16_384
"""Rows that are encoded at a time."""


class FaissIvf(Protocol):
    """What is used of a `faiss.IndexIVF`; faiss has no types for most of it."""

    ntotal: int
    nlist: int
    code_size: int
    is_trained: bool
    invlists: Any
    sq: Any
    """Of all but the index of numbers in full."""
    add_core: Callable[..., None]
    search_preassigned_c: Callable[..., None]
    remove_ids: Callable[..., int]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors with the key of their put and their place among its forms."""

    vectors_RD: Vectors
    key_R: NDArray[np.int64]
    form_R: NDArray[np.int64]

    def where(self, chosen_R: NDArray[np.bool_]) -> Rows:
        """Those that are chosen."""
        return Rows(
            vectors_RD=self.vectors_RD[chosen_R], key_R=self.key_R[chosen_R], form_R=self.form_R[chosen_R]
        )


class NearestRows(msgspec.Struct, frozen=True, kw_only=True):
    """The nearest rows of a segment for each query, best first."""

    similarities_BK: NDArray[np.float32]
    key_BK: NDArray[np.int64]
    """-1: there were fewer rows."""
    form_BK: NDArray[np.int64]

    def of(self, queries: slice) -> NearestRows:
        """The same for some of the queries."""
        return NearestRows(
            similarities_BK=self.similarities_BK[queries],
            key_BK=self.key_BK[queries],
            form_BK=self.form_BK[queries],
        )

    def goes_on(self, rows: int, bar: float) -> bool:
        """Whether some of `rows` rows that were not read may lie above `bar`, of a single query."""
        ended = self.key_BK.shape[1] >= rows or self.key_BK[0, -1] < 0
        return not ended and bool(self.similarities_BK[0, -1] > bar)


class Centroids:
    """The centroids of the lists, grouped into cells. Immutable."""

    def __init__(self, cells_CD: Vectors, cell_of_L: NDArray[np.int64], centroids_LD: Vectors) -> None:
        """`cell_of_L` is ascending: lists of a cell are neighbours."""
        self._cells_CD = cells_CD
        self._first_C = np.searchsorted(cell_of_L, np.arange(len(cells_CD) + 1))
        self.cell_of_L = cell_of_L
        self.centroids_LD = centroids_LD

    @property
    def cells_CD(self) -> Vectors:
        """The upper level."""
        return self._cells_CD

    def __len__(self) -> int:
        """How many lists there are."""
        return len(self.centroids_LD)

    @classmethod
    def trained(cls, sample_RD: Vectors, lists: int) -> Centroids:
        """Centroids of at most `lists` lists, by k-means."""
        cells = max(1, min(round(lists**0.5), len(sample_RD)))
        cells_CD = _means(sample_RD, cells)
        (cell_R,) = faiss.knn(sample_RD, cells_CD, 1)[1].T
        centroids, cell_of = [], []
        for cell in range(cells):
            members_RD = sample_RD[cell_R == cell]
            share = min(len(members_RD), max(1, round(lists * len(members_RD) / len(sample_RD))))
            if share:
                centroids.append(_means(members_RD, share))
                cell_of += [cell] * share
        made = cls(cells_CD, np.array(cell_of, dtype=np.int64), np.concatenate(centroids))
        list_R = made.assigned(sample_RD)
        order_R = np.argsort(list_R, kind="stable")
        used, first = np.unique(list_R[order_R], return_index=True)
        moved_LD = made.centroids_LD.copy()
        moved_LD[used] = np.add.reduceat(sample_RD[order_R], first) / np.diff([*first, len(order_R)])[:, None]
        return cls(cells_CD, made.cell_of_L, moved_LD)

    def nearest(self, queries_BD: Vectors, count: int) -> NDArray[np.int64]:
        """The lists whose centroids are nearest, nearest first. *Shape:* (B, at most `count`)."""
        lists_BP: NDArray[np.int64] = faiss.knn(queries_BD, self.centroids_LD, min(count, len(self)))[1]
        return lists_BP

    def assigned(self, rows_RD: Vectors) -> NDArray[np.int64]:
        """The list of each row: that of the nearest centroid in the nearest cells. *Shape:* (R,)."""
        list_R = np.zeros(len(rows_RD), dtype=np.int64)
        best_R = np.full(len(rows_RD), np.inf, dtype=np.float32)
        read = min(_CELLS_READ, len(self._cells_CD))
        for cells_R in faiss.knn(rows_RD, self._cells_CD, read)[1].T:
            order_R = np.argsort(cells_R, kind="stable")
            ends = np.searchsorted(cells_R[order_R], np.arange(len(self._cells_CD) + 1))
            for cell in range(len(self._cells_CD)):
                first, last = self._first_C[cell], self._first_C[cell + 1]
                at_R = order_R[ends[cell] : ends[cell + 1]]
                if first == last or not len(at_R):
                    continue
                distances, lists = faiss.knn(rows_RD[at_R], self.centroids_LD[first:last], 1)
                nearer = distances[:, 0] < best_R[at_R]
                best_R[at_R[nearer]] = distances[nearer, 0]
                list_R[at_R[nearer]] = first + lists[nearer, 0]
        return list_R


class IvfSegment(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows in the lists of a scheme."""

    scheme: IvfScheme
    lists: FaissIvf
    """Never written once the segment is made."""
    key_E: NDArray[np.int64]
    """The keys of its edits, ascending."""
    forms_E: NDArray[np.int64]
    """How many rows each of them has."""

    @property
    def rows(self) -> int:
        """How many rows there are, those that count no longer included."""
        return int(self.lists.ntotal)

    def search(
        self, queries_BD: Vectors, lists_BP: NDArray[np.int64], queries: slice, fetched: int
    ) -> NearestRows:
        """For those of the queries the `fetched` nearest rows of the lists given for each."""
        return self._search(queries_BD[queries], lists_BP[queries], fetched)

    def _search(self, queries_BD: Vectors, lists_BP: NDArray[np.int64], fetched: int) -> NearestRows:
        queries, probes = lists_BP.shape
        similarities_BK = np.empty((queries, fetched), dtype=np.float32)
        id_BK = np.empty((queries, fetched), dtype=np.int64)
        unread_BP = np.zeros((queries, probes), dtype=np.float32)
        # A parameter object of its own for each call: faiss writes to it, so threads must not share one.
        parameters: Any = faiss.SearchParametersIVF()
        parameters.nprobe = probes
        for query in range(queries):  # one by one: faiss would start threads for several
            self.lists.search_preassigned_c(
                1,
                faiss.swig_ptr(queries_BD[query]),
                fetched,
                faiss.swig_ptr(lists_BP[query]),
                faiss.swig_ptr(unread_BP[query]),
                faiss.swig_ptr(similarities_BK[query]),
                faiss.swig_ptr(id_BK[query]),
                False,
                parameters,
            )
        offset_B1 = queries_BD @ self.scheme.mean_D[:, None]
        return NearestRows(
            similarities_BK=similarities_BK + offset_B1,
            key_BK=id_BK // MAX_FORMS,
            form_BK=id_BK % MAX_FORMS,
        )

    def sampled(self, count: int) -> Vectors:
        """About `count` of the rows."""
        size = max(1, self.rows // max(1, count))
        return np.concatenate([rows.vectors_RD[::size] for rows in self.rows_in_full()])

    def rows_in_full(self) -> Iterator[Rows]:
        """All rows as near to what they were as their precision allows, some thousands at a time."""
        inverted = self.lists.invlists
        codes: list[NDArray[np.uint8]] = []
        ids: list[NDArray[np.int64]] = []
        held = 0
        for number in range(self.lists.nlist):
            size = inverted.list_size(number)
            if size:
                codes.append(
                    faiss.rev_swig_ptr(inverted.get_codes(number), size * self.lists.code_size).reshape(
                        size, -1
                    )
                )
                ids.append(faiss.rev_swig_ptr(inverted.get_ids(number), size))
                held += size
            if held and (held >= _CHUNK or number == self.lists.nlist - 1):
                id_R = np.concatenate(ids)
                yield Rows(
                    vectors_RD=self.scheme.decoded(np.concatenate(codes)),
                    key_R=id_R // MAX_FORMS,
                    form_R=id_R % MAX_FORMS,
                )
                codes, ids, held = [], [], 0


class IvfScheme:
    """What the segments of an index share: the centroids, and how a vector is written. Immutable.

    Vectors are written less their mean, which makes them a good deal smaller and so their rounding finer;
    decoding and encoding again changes nothing, so rows can move between schemes of one `Precision`.
    """

    def __init__(
        self, *, precision: Precision, mean_D: Vectors, centroids: Centroids, empty: FaissIvf
    ) -> None:
        """`empty` is trained and has no rows."""
        self.precision = precision
        self.mean_D = mean_D
        self.centroids = centroids
        self._empty = empty

    @classmethod
    def trained(
        cls, sample_RD: Vectors, *, lists: int, precision: Precision, like: IvfScheme | None = None
    ) -> IvfScheme:
        """A scheme for rows like `sample_RD`; it writes vectors as `like` does, if that has its precision."""
        keeps_writing = like is not None and like.precision == precision and like.fits(sample_RD)
        mean_D = like.mean_D if like is not None and keeps_writing else sample_RD.mean(axis=0)
        centred_RD = np.ascontiguousarray(sample_RD - mean_D)
        centroids = Centroids.trained(centred_RD, lists)
        width = sample_RD.shape[1]
        place = faiss.IndexFlatL2(width)  # lists are chosen by `centroids`: faiss is only given their numbers
        if precision == "fp32":
            made: object = faiss.IndexIVFFlat(place, width, len(centroids), faiss.METRIC_INNER_PRODUCT)
            empty = cast(FaissIvf, made)
        else:
            kind = faiss.ScalarQuantizer.QT_fp16 if precision == "fp16" else faiss.ScalarQuantizer.QT_8bit
            made = faiss.IndexIVFScalarQuantizer(
                place, width, len(centroids), kind, faiss.METRIC_INNER_PRODUCT, False
            )
            empty = cast(FaissIvf, made)
            if like is not None and keeps_writing:
                faiss.copy_array_to_vector(faiss.vector_to_array(like._empty.sq.trained), empty.sq.trained)
            else:
                empty.sq.rangestat = faiss.ScalarQuantizer.RS_meanstd
                empty.sq.rangestat_arg = _SPREAD
                empty.sq.train(centred_RD)
        empty.is_trained = True
        return cls(precision=precision, mean_D=mean_D, centroids=centroids, empty=empty)

    def fits(self, rows_RD: Vectors) -> bool:
        """Whether rows like these can be written, hardly one of their components being out of range."""
        if self.precision != "int8":
            return True
        low_D, reach_D = faiss.vector_to_array(self._empty.sq.trained).reshape(2, -1)
        centred_RD = rows_RD - self.mean_D
        outside = ((centred_RD < low_D) | (centred_RD > low_D + reach_D)).mean()
        return bool(outside < _MOST_OUTSIDE)

    def nearest_lists(self, queries_BD: Vectors, count: int) -> NDArray[np.int64]:
        """See `Centroids.nearest`."""
        return self.centroids.nearest(queries_BD - self.mean_D, count)

    def decoded(self, codes_RC: NDArray[np.uint8]) -> Vectors:
        """The vectors of rows as they are written."""
        if self.precision == "fp32":
            centred_RD: Vectors = codes_RC.view(np.float32)
        else:
            centred_RD = self._empty.sq.decode(codes_RC)
        return centred_RD + self.mean_D

    def segment(self, parts: Iterable[Rows], *, on_chunk: Callable[[], None] = lambda: None) -> IvfSegment:
        """The rows of all `parts`. `on_chunk` is called every few thousand rows; what it raises ends it."""
        lists = _copied(self._empty)
        keys = [np.zeros(0, dtype=np.int64)]
        for part in parts:
            for start in range(0, len(part.key_R), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                rows_RD = np.ascontiguousarray(part.vectors_RD[chunk] - self.mean_D)
                list_R = self.centroids.assigned(rows_RD)
                id_R = part.key_R[chunk] * MAX_FORMS + part.form_R[chunk]
                lists.add_core(
                    len(id_R), faiss.swig_ptr(rows_RD), faiss.swig_ptr(id_R), faiss.swig_ptr(list_R)
                )
                keys.append(part.key_R[chunk])
                on_chunk()
        return self._finished(lists, *np.unique(np.concatenate(keys), return_counts=True))

    def merged(
        self, segments: Sequence[IvfSegment], is_dead: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    ) -> IvfSegment:
        """One segment of the rows of all `segments`, which are of this scheme, without the dead keys'."""
        lists = _copied(self._empty)
        keys, forms = [], []
        for segment in segments:
            part = _copied(segment.lists)
            dead_E = is_dead(segment.key_E)
            if dead_E.any():
                part.remove_ids(faiss.IDSelectorBatch(_ids(segment.key_E[dead_E], segment.forms_E[dead_E])))
            lists.invlists.merge_from(part.invlists, 0)
            lists.ntotal += part.ntotal
            keys.append(segment.key_E[~dead_E])
            forms.append(segment.forms_E[~dead_E])
        key_E = np.concatenate(keys)
        order_E = np.argsort(key_E, kind="stable")
        return self._finished(lists, key_E[order_E], np.concatenate(forms)[order_E])

    def _finished(self, lists: FaissIvf, key_E: NDArray[np.int64], forms_E: NDArray[np.int64]) -> IvfSegment:
        # A copy takes no more memory than it needs, while lists that grew have up to twice as much.
        return IvfSegment(scheme=self, lists=_copied(lists), key_E=key_E, forms_E=forms_E)


def _copied(lists: FaissIvf) -> FaissIvf:
    copy: object = faiss.clone_index(cast(Any, lists))
    return cast(FaissIvf, copy)


def _means(rows_RD: Vectors, count: int) -> Vectors:
    """`count` means of k-means."""
    kmeans = faiss.Kmeans(
        rows_RD.shape[1], count, niter=_ROUNDS, seed=7, min_points_per_centroid=1,
        max_points_per_centroid=4 * _TRAINING_ROWS_PER_LIST,
    )  # fmt: skip
    kmeans.train(rows_RD)
    return cast(Vectors, kmeans.centroids)


def _ids(key_E: NDArray[np.int64], forms_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ids of all rows of the keys."""
    first_E = np.repeat(key_E * MAX_FORMS, forms_E)
    starts_E = np.repeat(np.cumsum(forms_E) - forms_E, forms_E)
    return first_E + np.arange(len(first_E)) - starts_E
