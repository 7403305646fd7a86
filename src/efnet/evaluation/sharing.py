"""Which batches of a split a process evaluates, and how the matrices of all come together."""

from __future__ import annotations

from efnet.data.pairs import PairSet
from efnet.evaluation.tally import PairCounts, Tally
from efnet.group import Group


class Work:
    """A process's part of a split: every n-th batch, where n processes share it.

    Args:
        pairs: number of them in the split.
        batch_size: pairs per batch.
        group: the processes.

    Attributes:
        batches: numbers of the pairs of each batch of this process.
        turns: the most batches that a process has.
    """

    def __init__(self, pairs: int, batch_size: int, group: Group) -> None:
        starts = range(0, pairs, batch_size)
        batches = [list(range(start, min(start + batch_size, pairs))) for start in starts]
        self.group = group
        self.batches = batches[group.rank :: group.size]
        self.turns = -(-len(batches) // group.size)

    @property
    def indices(self) -> list[int]:
        """Numbers of this process's pairs."""
        return [index for batch in self.batches for index in batch]

    def collect(self, tally: Tally, pairset: PairSet) -> Tally:
        """What all processes counted, in the order of the split; every process must call this.

        Args:
            tally: what this one counted: all its pairs, in its order.
            pairset: the split.
        """
        if self.group.size == 1:
            return tally
        own = zip(self.indices, (entry.counts for entry in tally.pairs), strict=True)
        counts = dict(entry for part in self.group.gather(list(own)) for entry in part)
        pairs = [PairCounts(pairset.pairs[index], counts[index]) for index in sorted(counts)]
        return Tally(tally.classes, tally.protocol, pairs)
