//! A sorted list of keys, each with one small cell or more, packed for tens of millions of them.
//!
//! Branches hold leaves, leaves hold rows: a row is a digest and its first cell, and all rows of a leaf are of one shape
//! and lie in one piece of memory. Second and later cells, which few keys have, stand beside the rows. An insertion moves
//! memory within one leaf only. Branches and leaves are shared on `clone` and copied when one of the owners writes: a
//! clone costs a pointer for each branch and stays as it was.
//!
//! Keys whose shape is none of their neighbours' (a length of digest that nobody else has) stand in leaves of their own,
//! which costs such a key some 300 bytes more, less than ten times what its record takes on the disk.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::replica::stored::{Damaged, Source, Stored as _};

/// A leaf is split when it holds more: its half is moved by an insertion, which is to take less than a microsecond.
const LEAF_BYTES_MAX: usize = 12 * 1024;
/// By how much a full leaf grows. Doubling would leave a quarter of all memory unused, this leaves a twentieth.
const GROWTH_BYTES: usize = 768;
/// A branch is split when it holds more leaves; so many pointers are copied when a clone is alive and a branch written.
const BRANCH_LEAVES_MAX: usize = 512;
/// Most cells beside the first that one key has: four families of words, each of as many members as have a seat.
const MORE_MAX: usize = 4 * 65_536;
/// Longest digest in bytes: that of a record which holds nothing else.
const DIGEST_SIZE_MAX: usize = 4_096;

/// What the list is sorted by, in the order of `Subject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    pub(super) alg: u16,
    pub(super) kind: u16,
    pub(super) param: u32,
    pub(super) digest: &'a [u8],
}

/// The beginning of a key: a key that is less never has a greater one.
pub(super) type Rank = u128;

impl<'a> Key<'a> {
    /// Bytes of the digest that are part of the rank.
    const PREFIX: usize = 8;

    pub(super) fn rank(&self) -> Rank {
        let mut prefix = [0; Self::PREFIX];
        let len = self.digest.len().min(Self::PREFIX);
        prefix[..len].copy_from_slice(&self.digest[..len]);
        let head = u64::from(self.alg) << 48 | u64::from(self.kind) << 32 | u64::from(self.param);
        Rank::from(head) << 64 | Rank::from(u64::from_be_bytes(prefix))
    }

    fn shape(&self) -> Shape {
        Shape { alg: self.alg, kind: self.kind, param: self.param, width: self.digest.len() }
    }
}

/// What the keys of one leaf have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    alg: u16,
    kind: u16,
    param: u32,
    /// Of the digest, in bytes.
    width: usize,
}

/// The second or a later cell of a row.
#[derive(Clone, Copy, Debug)]
struct More<const CELL: usize> {
    row: u16,
    cell: [u8; CELL],
}

/// Keys that follow each other, of one shape.
#[derive(Clone, Debug)]
struct Leaf<const CELL: usize> {
    shape: Shape,
    rows: Vec<u8>,
    /// By row, and of one row in the order in which they came.
    more: Vec<More<CELL>>,
}

/// The cells of one key: at least one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a, const CELL: usize> {
    first: &'a [u8],
    more: &'a [More<CELL>],
}

impl<'a, const CELL: usize> Cells<'a, CELL> {
    /// In the order in which they came.
    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = [u8; CELL]> + Clone + use<'a, CELL> {
        let first = self.first.first_chunk().copied().unwrap_or([0; CELL]);
        (0..self.len()).map(move |n| n.checked_sub(1).map_or(first, |n| self.more[n].cell))
    }

    pub(super) fn len(self) -> usize {
        1 + self.more.len()
    }
}

/// A key and what stands with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a, const CELL: usize> {
    pub(super) key: Key<'a>,
    pub(super) cells: Cells<'a, CELL>,
}

impl<const CELL: usize> Leaf<CELL> {
    fn of(key: &Key<'_>, cell: &[u8; CELL]) -> Self {
        let mut rows = Vec::with_capacity(key.digest.len() + CELL);
        rows.extend_from_slice(key.digest);
        rows.extend_from_slice(cell);
        Self { shape: key.shape(), rows, more: Vec::new() }
    }

    fn row_len(&self) -> usize {
        self.shape.width + CELL
    }

    fn len(&self) -> usize {
        self.rows.len().checked_div(self.row_len()).unwrap_or(0)
    }

    fn key(&self, row: usize) -> Key<'_> {
        let at = row * self.row_len();
        let Shape { alg, kind, param, width } = self.shape;
        Key { alg, kind, param, digest: &self.rows[at..at + width] }
    }

    fn more(&self, row: usize) -> &[More<CELL>] {
        let from = self.more.partition_point(|more| usize::from(more.row) < row);
        let count = self.more[from..].partition_point(|more| usize::from(more.row) == row);
        &self.more[from..from + count]
    }

    fn row(&self, row: usize) -> Row<'_, CELL> {
        let at = row * self.row_len() + self.shape.width;
        Row { key: self.key(row), cells: Cells { first: &self.rows[at..at + CELL], more: self.more(row) } }
    }

    fn rows_from(&self, row: usize) -> impl Iterator<Item = Row<'_, CELL>> {
        (row..self.len()).map(|row| self.row(row))
    }

    /// Begins at `guess` and goes in growing steps towards the key: hashes lie evenly, so that it is a few rows off, and
    /// these lie beside each other in memory, where those of a search by halves do not.
    fn search(&self, key: &Key<'_>, guess: usize) -> Result<usize, usize> {
        let (len, mut step) = (self.len(), 1);
        let (mut low, mut high, mut at) = (0, len, guess.min(len.saturating_sub(1)));
        while low < high {
            match self.key(at).cmp(key) {
                Ordering::Less => low = at + 1,
                Ordering::Equal => return Ok(at),
                Ordering::Greater => high = at,
            }
            at = match (low > 0, high < len) {
                (true, true) => low.midpoint(high),
                (true, false) => (low + step).min(high - 1),
                (false, _) => high.saturating_sub(step),
            };
            step *= 2;
        }
        Err(low)
    }

    fn insert(&mut self, row: usize, key: &Key<'_>, cell: &[u8; CELL]) {
        let (len, end, at) = (self.row_len(), self.rows.len(), row * self.row_len());
        if self.rows.capacity() - end < len {
            self.rows.reserve_exact(GROWTH_BYTES.max(len));
        }
        self.rows.resize(end + len, 0);
        self.rows.copy_within(at..end, at + len);
        let (digest, first) = self.rows[at..at + len].split_at_mut(self.shape.width);
        digest.copy_from_slice(key.digest);
        first.copy_from_slice(cell);
        self.more.iter_mut().rev().take_while(|more| usize::from(more.row) >= row).for_each(|more| more.row += 1);
    }

    fn push(&mut self, row: usize, cell: [u8; CELL]) {
        if self.more.len() == self.more.capacity() {
            self.more.reserve_exact((self.more.len() / 8).max(4));
        }
        let at = self.more.partition_point(|more| usize::from(more.row) <= row);
        self.more.insert(at, More { row: u16::try_from(row).unwrap_or(u16::MAX), cell });
    }

    fn replace(&mut self, row: usize, nth: usize, cell: [u8; CELL]) {
        match nth.checked_sub(1) {
            None => {
                let at = row * self.row_len() + self.shape.width;
                self.rows[at..at + CELL].copy_from_slice(&cell);
            }
            Some(nth) => {
                let from = self.more.partition_point(|more| usize::from(more.row) < row);
                self.more[from + nth].cell = cell;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.rows.len() + size_of_val(self.more.as_slice())
    }

    /// Too large, and more than one row.
    fn is_full(&self) -> bool {
        self.bytes() > LEAF_BYTES_MAX && self.rows.len() > self.row_len()
    }

    /// Keeps about a half of the bytes, and gives the rest.
    fn split(&mut self) -> Self {
        let half = self.bytes() / 2;
        let up_to = |row: usize| {
            let more = self.more.partition_point(|more| usize::from(more.row) < row);
            row * self.row_len() + more * size_of::<More<CELL>>()
        };
        let rows: Vec<_> = (1..self.len()).collect();
        let at = 1 + rows.partition_point(|row| up_to(*row) < half);
        self.split_off(at.min(rows.len()))
    }

    fn split_off(&mut self, row: usize) -> Self {
        let rows = self.rows.split_off(row * self.row_len());
        let from = self.more.partition_point(|more| usize::from(more.row) < row);
        let mut more = self.more.split_off(from);
        more.iter_mut().for_each(|more| more.row -= u16::try_from(row).unwrap_or(more.row));
        self.rows.shrink_to_fit();
        self.more.shrink_to_fit();
        Self { shape: self.shape, rows, more }
    }

    fn remove_first(&mut self, count: usize) {
        let rest = self.split_off(count);
        *self = rest;
    }
}

/// Leaves that follow each other, with the rank of each one's first key.
#[derive(Clone, Debug, Default)]
struct Branch<const CELL: usize> {
    firsts: Vec<Rank>,
    leaves: Vec<Arc<Leaf<CELL>>>,
}

impl<const CELL: usize> Branch<CELL> {
    fn of(leaves: Vec<Arc<Leaf<CELL>>>) -> Self {
        Self { firsts: leaves.iter().map(|leaf| leaf.key(0).rank()).collect(), leaves }
    }
}

/// Where a key stands, or where it would; good until the list is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    branch: usize,
    leaf: usize,
    row: usize,
}

/// The sorted list. Nothing in it is ever empty.
#[derive(Clone, Debug)]
pub(super) struct Listing<const CELL: usize> {
    firsts: Vec<Rank>,
    branches: Vec<Arc<Branch<CELL>>>,
    len: usize,
}

impl<const CELL: usize> Default for Listing<CELL> {
    fn default() -> Self {
        Self { firsts: Vec::new(), branches: Vec::new(), len: 0 }
    }
}

impl<const CELL: usize> Listing<CELL> {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where `key` stands; else where it would.
    pub(super) fn find(&self, key: &Key<'_>) -> Result<Spot, Spot> {
        let rank = key.rank();
        let branch = last_up_to(&self.firsts, rank, |n| self.branches[n].leaves[0].key(0) <= *key);
        let Some(leaves) = self.branches.get(branch) else { return Err(Spot::default()) };
        let leaf = last_up_to(&leaves.firsts, rank, |n| leaves.leaves[n].key(0) <= *key);
        let spot = |row| Spot { branch, leaf, row };
        let next = leaves.firsts.get(leaf + 1).or_else(|| self.firsts.get(branch + 1));
        let sought = &leaves.leaves[leaf];
        let guess = next.map_or(0, |next| between(rank, leaves.firsts[leaf], *next, sought.len()));
        sought.search(key, guess).map(spot).map_err(spot)
    }

    /// The cells of `key`.
    pub(super) fn cells(&self, key: &Key<'_>) -> Option<Cells<'_, CELL>> {
        self.find(key).ok().map(|spot| self.cells_at(spot))
    }

    /// The cells of the key at `spot`.
    pub(super) fn cells_at(&self, spot: Spot) -> Cells<'_, CELL> {
        self.branches[spot.branch].leaves[spot.leaf].row(spot.row).cells
    }

    /// From `spot` on.
    pub(super) fn rows_from(&self, spot: Spot) -> impl Iterator<Item = Row<'_, CELL>> {
        let leaves = self.branches[spot.branch.min(self.branches.len())..].iter().flat_map(|branch| &branch.leaves);
        let begin = move |n| if n == 0 { spot.row } else { 0 };
        leaves.skip(spot.leaf).enumerate().flat_map(move |(n, leaf)| leaf.rows_from(begin(n)))
    }

    /// All.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_, CELL>> {
        self.rows_from(Spot::default())
    }

    /// All after `key`, whether that stands here or not.
    pub(super) fn rows_after<'a>(
        &'a self,
        key: Option<Key<'_>>,
    ) -> impl Iterator<Item = Row<'a, CELL>> + use<'a, CELL> {
        let spot = match key.map(|key| self.find(&key)) {
            None => Spot::default(),
            Some(Err(spot)) => spot,
            Some(Ok(spot)) => Spot { row: spot.row + 1, ..spot },
        };
        self.rows_from(spot)
    }

    /// All of one rank.
    pub(super) fn rows_of(&self, rank: Rank) -> impl Iterator<Item = Row<'_, CELL>> {
        let [alg_high, alg_low, kind_high, kind_low, p0, p1, p2, p3, prefix @ ..] = rank.to_be_bytes();
        // A digest that is shorter than its part of the rank reads there as if zeros followed.
        let len = prefix.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let first = Key {
            alg: u16::from_be_bytes([alg_high, alg_low]),
            kind: u16::from_be_bytes([kind_high, kind_low]),
            param: u32::from_be_bytes([p0, p1, p2, p3]),
            digest: &prefix[..len],
        };
        let spot = self.find(&first).unwrap_or_else(|spot| spot);
        self.rows_from(spot).take_while(move |row| row.key.rank() == rank)
    }

    /// Adds a key that [`Listing::find`] did not find: `spot` is where it would stand.
    pub(super) fn insert(&mut self, spot: Spot, key: &Key<'_>, cell: &[u8; CELL]) {
        self.len += 1;
        let Spot { branch, leaf, row } = spot;
        let Some(standing) = self.leaf(branch, leaf) else {
            return self.add_leaves(branch, leaf, vec![Leaf::of(key, cell)]);
        };
        if standing.shape == key.shape() {
            return self.insert_row(spot, key, cell);
        }
        if row == 0 {
            return self.add_leaves(branch, leaf, vec![Leaf::of(key, cell)]);
        }
        if row < standing.len() {
            let rest = self.leaf_mut(branch, leaf).split_off(row);
            return self.add_leaves(branch, leaf + 1, vec![Leaf::of(key, cell), rest]);
        }
        let (b, l) = if leaf + 1 < self.branches[branch].leaves.len() { (branch, leaf + 1) } else { (branch + 1, 0) };
        match self.leaf(b, l).filter(|next| next.shape == key.shape()) {
            Some(_) => self.insert_row(Spot { branch: b, leaf: l, row: 0 }, key, cell),
            None => self.add_leaves(branch, leaf + 1, vec![Leaf::of(key, cell)]),
        }
    }

    /// Puts `cell` in the place of the `nth` of the key at `spot`.
    pub(super) fn replace(&mut self, spot: Spot, nth: usize, cell: [u8; CELL]) {
        self.leaf_mut(spot.branch, spot.leaf).replace(spot.row, nth, cell);
    }

    /// Adds a cell to the key at `spot`.
    pub(super) fn push(&mut self, spot: Spot, cell: [u8; CELL]) {
        self.leaf_mut(spot.branch, spot.leaf).push(spot.row, cell);
        self.split_if_full(spot.branch, spot.leaf);
    }

    /// Removes the first `count` keys.
    pub(super) fn remove_first(&mut self, mut count: usize) {
        while count > 0
            && let Some(first) = self.leaf(0, 0)
        {
            let (has, rows) = (first.len(), first.len().min(count));
            (count, self.len) = (count - rows, self.len - rows);
            if rows < has {
                self.leaf_mut(0, 0).remove_first(rows);
                self.rank_anew(0, 0);
            } else if self.branches[0].leaves.len() > 1 {
                let branch = Arc::make_mut(&mut self.branches[0]);
                branch.leaves.remove(0);
                branch.firsts.remove(0);
                self.rank_anew(0, 0);
            } else {
                self.branches.remove(0);
                self.firsts.remove(0);
            }
        }
    }

    fn leaf(&self, branch: usize, leaf: usize) -> Option<&Leaf<CELL>> {
        self.branches.get(branch)?.leaves.get(leaf).map(Arc::as_ref)
    }

    fn leaf_mut(&mut self, branch: usize, leaf: usize) -> &mut Leaf<CELL> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.branches[branch]).leaves[leaf])
    }

    fn insert_row(&mut self, spot: Spot, key: &Key<'_>, cell: &[u8; CELL]) {
        self.leaf_mut(spot.branch, spot.leaf).insert(spot.row, key, cell);
        if spot.row == 0 {
            self.rank_anew(spot.branch, spot.leaf);
        }
        self.split_if_full(spot.branch, spot.leaf);
    }

    fn split_if_full(&mut self, branch: usize, leaf: usize) {
        if self.leaf(branch, leaf).is_some_and(Leaf::is_full) {
            let rest = self.leaf_mut(branch, leaf).split();
            self.add_leaves(branch, leaf + 1, vec![rest]);
        }
    }

    /// The first key of a leaf is another one.
    fn rank_anew(&mut self, branch: usize, leaf: usize) {
        let of = Arc::make_mut(&mut self.branches[branch]);
        of.firsts[leaf] = of.leaves[leaf].key(0).rank();
        self.firsts[branch] = of.firsts[0];
    }

    fn add_leaves(&mut self, branch: usize, at: usize, leaves: Vec<Leaf<CELL>>) {
        if self.branches.is_empty() {
            self.branches.push(Arc::default());
            self.firsts.push(0);
        }
        let of = Arc::make_mut(&mut self.branches[branch]);
        of.firsts.splice(at..at, leaves.iter().map(|leaf| leaf.key(0).rank()));
        of.leaves.splice(at..at, leaves.into_iter().map(Arc::new));
        self.firsts[branch] = of.firsts[0];
        if of.leaves.len() > BRANCH_LEAVES_MAX {
            let half = of.leaves.len() / 2;
            let rest = Branch { firsts: of.firsts.split_off(half), leaves: of.leaves.split_off(half) };
            self.firsts.insert(branch + 1, rest.firsts[0]);
            self.branches.insert(branch + 1, Arc::new(rest));
        }
    }

    /// Writes the list: how many leaves, then each as it lies in memory.
    pub(super) fn write_to<E>(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let leaves = || self.branches.iter().flat_map(|branch| &branch.leaves);
        let mut out = Vec::new();
        (leaves().count() as u64).store(&mut out);
        for leaf in leaves() {
            let Shape { alg, kind, param, width } = leaf.shape;
            (alg, kind, param).store(&mut out);
            let sizes = [width, leaf.len(), leaf.more.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            sizes.iter().for_each(|size| size.store(&mut out));
            sink(&out)?;
            out.clear();
            sink(&leaf.rows)?;
            for more in &leaf.more {
                more.row.store(&mut out);
                more.cell.store(&mut out);
            }
        }
        sink(&out)?;
        Ok(())
    }

    /// The list that was written, if it is one whose every cell `is_whole`.
    pub(super) fn read_from(source: &mut Source<'_>, is_whole: impl Fn(&[u8; CELL]) -> bool) -> Result<Self, Damaged> {
        let mut listing = Self::default();
        let mut leaves: Vec<Arc<Leaf<CELL>>> = Vec::new();
        let count = u64::load(source)?;
        for _ in 0..count {
            let leaf = Leaf::read_from(source, &is_whole)?;
            let before = leaves.last().or_else(|| listing.branches.last()?.leaves.last());
            if before.is_some_and(|before| before.key(before.len() - 1) >= leaf.key(0)) {
                return Err(Damaged::Order);
            }
            listing.len += leaf.len();
            leaves.push(Arc::new(leaf));
            // Half full, as after a split: there is room before the next.
            if leaves.len() >= BRANCH_LEAVES_MAX / 2 {
                listing.add_branch(std::mem::take(&mut leaves));
            }
        }
        listing.add_branch(leaves);
        Ok(listing)
    }

    fn add_branch(&mut self, leaves: Vec<Arc<Leaf<CELL>>>) {
        let branch = Branch::of(leaves);
        if let Some(first) = branch.firsts.first() {
            self.firsts.push(*first);
            self.branches.push(Arc::new(branch));
        }
    }
}

impl<const CELL: usize> Leaf<CELL> {
    fn read_from(source: &mut Source<'_>, is_whole: &impl Fn(&[u8; CELL]) -> bool) -> Result<Self, Damaged> {
        let (alg, kind, param) = (u16::load(source)?, u16::load(source)?, u32::load(source)?);
        let [width, rows, more] = [u32::load(source)?, u32::load(source)?, u32::load(source)?].map(|n| n as usize);
        let size = (width + CELL).saturating_mul(rows);
        let fits = width <= DIGEST_SIZE_MAX && rows > 0 && more <= MORE_MAX && (size <= LEAF_BYTES_MAX || rows == 1);
        if !fits || size == 0 {
            return Err(Damaged::Size);
        }
        let mut leaf =
            Self { shape: Shape { alg, kind, param, width }, rows: vec![0; size], more: Vec::with_capacity(more) };
        source.fill(&mut leaf.rows)?;
        for _ in 0..more {
            let row = u16::load(source)?;
            let mut cell = [0; CELL];
            source.fill(&mut cell)?;
            leaf.more.push(More { row, cell });
        }
        leaf.check(is_whole)?;
        Ok(leaf)
    }

    fn check(&self, is_whole: &impl Fn(&[u8; CELL]) -> bool) -> Result<(), Damaged> {
        let rows = || self.rows.chunks_exact(self.row_len()).map(|row| row.split_at(self.shape.width));
        if !rows().map(|(digest, _)| digest).is_sorted_by(|a, b| a < b) {
            return Err(Damaged::Order);
        }
        let in_order = self.more.is_sorted_by_key(|more| more.row);
        if !in_order || self.more.last().is_some_and(|more| usize::from(more.row) >= self.len()) {
            return Err(Damaged::Order);
        }
        let firsts = rows().filter_map(|(_, cell)| cell.first_chunk());
        if firsts.chain(self.more.iter().map(|more| &more.cell)).all(is_whole) { Ok(()) } else { Err(Damaged::Number) }
    }
}

/// Where `rank` lies of `len` rows that lie evenly from `first` to `next`.
fn between(rank: Rank, first: Rank, next: Rank, len: usize) -> usize {
    let (offset, span) = (rank.saturating_sub(first), next.saturating_sub(first));
    // As many bits as can be multiplied by a number of rows.
    let shift = (Rank::BITS - span.leading_zeros()).saturating_sub(48);
    let [offset, span] = [offset, span].map(|number| u64::try_from(number >> shift).unwrap_or(u64::MAX));
    usize::try_from(offset.saturating_mul(len as u64) / span.max(1)).unwrap_or(usize::MAX)
}

/// The last of those that are not greater than what is sought, which has `rank`; the first if all are.
fn last_up_to(firsts: &[Rank], rank: Rank, is_up_to: impl Fn(usize) -> bool) -> usize {
    let mut low = firsts.partition_point(|first| *first < rank);
    let mut high = low + firsts[low..].partition_point(|first| *first == rank);
    while low < high {
        let middle = low.midpoint(high);
        if is_up_to(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(u16, u16, u32, Vec<u8>), Vec<[u8; 3]>>;

    fn key((alg, kind, param, digest): &(u16, u16, u32, Vec<u8>)) -> Key<'_> {
        Key { alg: *alg, kind: *kind, param: *param, digest }
    }

    /// Adds a cell to the key of the list and of the model.
    fn put(listing: &mut Listing<3>, model: &mut Model, of: (u16, u16, u32, Vec<u8>), cell: [u8; 3]) {
        match listing.find(&key(&of)) {
            Ok(spot) => listing.push(spot, cell),
            Err(spot) => listing.insert(spot, &key(&of), &cell),
        }
        model.entry(of).or_default().push(cell);
    }

    fn assert_same(listing: &Listing<3>, model: &Model) {
        assert_eq!(listing.len(), model.len());
        let rows = listing.rows().map(|row| (row.key, row.cells.iter().collect::<Vec<_>>()));
        assert!(rows.eq(model.iter().map(|(of, cells)| (key(of), cells.clone()))));
        for branch in &listing.branches {
            assert!(!branch.leaves.is_empty() && branch.leaves.len() <= BRANCH_LEAVES_MAX);
            let rank = |leaf: &Arc<Leaf<3>>| leaf.key(0).rank();
            assert!(branch.leaves.iter().map(rank).eq(branch.firsts.iter().copied()));
            assert!(branch.leaves.iter().all(|leaf| leaf.rows.len() <= LEAF_BYTES_MAX || leaf.len() == 1));
        }
        assert!(listing.branches.iter().map(|branch| branch.firsts[0]).eq(listing.firsts.iter().copied()));
    }

    fn written(listing: &Listing<3>) -> Vec<u8> {
        let mut bytes = Vec::new();
        listing
            .write_to::<()>(&mut |more| {
                bytes.extend_from_slice(more);
                Ok(())
            })
            .unwrap();
        bytes
    }

    fn read(mut bytes: &[u8]) -> Result<Listing<3>, Damaged> {
        let mut fill = |room: &mut [u8]| {
            let (now, later) = bytes.split_at_checked(room.len()).ok_or(Damaged::Short)?;
            room.copy_from_slice(now);
            bytes = later;
            Ok(())
        };
        Listing::read_from(&mut Source::new(&mut fill), |cell| cell[2] < 200)
    }

    /// Few algorithms, kinds, parameters and lengths, digests with long common beginnings, and zeros at their ends.
    fn keys() -> impl Strategy<Value = (u16, u16, u32, Vec<u8>)> {
        let digest = prop_oneof![
            6 => prop::array::uniform32(any::<u8>()).prop_map(Vec::from),
            2 => any::<u16>().prop_map(|n| [vec![7; 30], n.to_be_bytes().to_vec()].concat()),
            1 => prop::collection::vec(0..3_u8, 0..12),
            1 => (0..5_usize).prop_map(|len| vec![9; 1_000 * len]),
        ];
        (0..3_u16, 0..2_u16, prop_oneof![4 => Just(0), 1 => 0..5_u32], digest)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Equal to a tree under any order of words, also where clones stand beside it, and after writing and reading.
        #[test]
        fn it_holds_what_a_tree_would_and_clones_stay_as_they_were(
            said in prop::collection::vec((keys(), any::<[u8; 2]>(), 0..6_u8), 1..1_500),
        ) {
            let (mut listing, mut model) = (Listing::default(), Model::new());
            let mut kept: Vec<(Listing<3>, Model)> = Vec::new();
            for (n, (of, [a, b], again)) in said.iter().enumerate() {
                put(&mut listing, &mut model, of.clone(), [*a, *b, 1]);
                // Some keys get many cells, and some cells are replaced.
                let many = (of.3.first() == Some(&7)).then_some(said[n / 2].0.clone());
                for key in many.iter().cycle().take(usize::from(*again)) {
                    put(&mut listing, &mut model, key.clone(), [*b, *a, 2]);
                }
                if *again == 5 {
                    let which = usize::from(*b) % model.len();
                    let (of, cells) = model.iter_mut().nth(which).unwrap();
                    let nth = usize::from(*a) % cells.len();
                    cells[nth] = [*a, *b, 3];
                    listing.replace(listing.find(&key(of)).unwrap(), nth, [*a, *b, 3]);
                }
                if n % 500 == 3 {
                    kept.push((listing.clone(), model.clone()));
                }
            }
            kept.push((listing, model));
            for (listing, model) in &kept {
                assert_same(listing, model);
                assert_same(&read(&written(listing)).unwrap(), model);
            }
            let (mut listing, mut model) = kept.pop().unwrap();
            for (of, _, _) in &said {
                prop_assert_eq!(listing.cells(&key(of)).unwrap().len(), model[of].len());
                let after = model.range((std::ops::Bound::Excluded(of), std::ops::Bound::Unbounded)).next();
                prop_assert_eq!(listing.rows_after(Some(key(of))).next().map(|row| row.key), after.map(|a| key(a.0)));
                let rank = key(of).rank();
                let same = model.keys().map(key).filter(|key| key.rank() == rank);
                prop_assert!(listing.rows_of(rank).map(|row| row.key).eq(same));
            }
            // From its beginning it can be eaten up in bites of any size.
            for (_, [bite, _], _) in &said {
                listing.remove_first(usize::from(*bite));
                model = model.into_iter().skip(usize::from(*bite)).collect();
                if *bite < 30 {
                    assert_same(&listing, &model);
                }
            }
        }

        #[test]
        fn what_is_not_whole_is_refused(
            said in prop::collection::vec((keys(), any::<[u8; 2]>()), 1..400),
            (at, bit, cut) in (any::<prop::sample::Index>(), 0..8_u8, any::<bool>()),
        ) {
            let (mut listing, mut model) = (Listing::default(), Model::new());
            said.into_iter().for_each(|(of, [a, b])| put(&mut listing, &mut model, of, [a, b, 1]));
            let mut bytes = written(&listing);
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
                prop_assert_eq!(read(&bytes).err(), Some(Damaged::Short));
            } else {
                bytes[at] ^= 1 << bit;
                // What can be read is in order, whatever it says.
                if let Ok(read) = read(&bytes) {
                    prop_assert!(read.rows().map(|row| row.key).is_sorted_by(|a, b| a < b));
                    prop_assert!(read.rows().all(|row| read.cells(&row.key).is_some_and(|c| c.len() == row.cells.len())));
                    prop_assert!(read.rows().flat_map(|row| row.cells.iter()).all(|cell| cell[2] < 200));
                }
            }
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).is_err() || bytes.starts_with(&[0; 8]));
        }
    }

    /// Ascending, descending and mixed, a hundred leaves and more: branches split too.
    #[test]
    fn any_order_of_many_gives_the_same_list() {
        let count = 200_000_u32;
        let scattered = |n: u32| n.wrapping_mul(2_654_435_761);
        let orders: [fn(u32, u32) -> u32; 3] = [|n, _| n, |n, count| count - 1 - n, |n, count| n * 7_777 % count];
        for order in orders {
            let mut listing = Listing::<3>::default();
            for n in (0..count).map(|n| order(n % count, count)) {
                let digest =
                    [n.to_be_bytes(), scattered(n).to_be_bytes(), [0; 4], [0; 4], [1; 4], [2; 4], [3; 4], [4; 4]];
                let digest = digest.concat();
                let key = Key { alg: 1, kind: 1, param: 0, digest: &digest };
                if let Err(spot) = listing.find(&key) {
                    listing.insert(spot, &key, &[0; 3]);
                }
            }
            let ascending = listing.rows().map(|row| row.key.digest[..4].to_vec());
            assert!(ascending.eq((0..count).map(|n| n.to_be_bytes().to_vec())));
            assert!(listing.branches.len() > 1);
            let room = |leaf: &Arc<Leaf<3>>| leaf.rows.capacity();
            let bytes: usize = listing.branches.iter().flat_map(|branch| branch.leaves.iter().map(room)).sum();
            assert!(bytes < count as usize * 35 * 11 / 10, "{bytes} bytes");
        }
    }
}
