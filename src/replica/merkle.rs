//! Merkle trees of RFC 6962: roots, growing roots, and inclusion paths. Hashes are 32 bytes, SHA-256.

use super::ids::sha256;

/// A node of the tree.
pub type Hash = [u8; 32];

/// Hash of a leaf whose content is `content`.
pub fn leaf_hash(content: &[u8]) -> Hash {
    sha256(&[&[0], content])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Root over leaf hashes; of no leaves, `H("")`.
pub fn root(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut range = CompactRange::default();
    for leaf in leaves {
        range.append(leaf);
    }
    range.root()
}

/// The roots of the perfect subtrees of a growing tree, largest first: all that is needed to append and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    peaks: Vec<Hash>,
}

impl CompactRange {
    /// A range as received; `None` if `size` leaves have another number of peaks.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds one leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Every trailing 1 of the size is a peak of the same height as `hash`: merge them.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return sha256(&[]) };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// For every leaf, the hashes that lead from it to the root, from the leaf upwards.
pub fn inclusion_paths(leaves: &[Hash]) -> Vec<Vec<Hash>> {
    let mut paths = vec![Vec::new(); leaves.len()];
    fill_paths(leaves, &mut paths);
    paths
}

/// Fills `paths` for the subtree over `leaves` and returns its root.
fn fill_paths(leaves: &[Hash], paths: &mut [Vec<Hash>]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = paths.split_at_mut(split);
            let roots = (fill_paths(&leaves[..split], left), fill_paths(&leaves[split..], right));
            left.iter_mut().for_each(|path| path.push(roots.1));
            right.iter_mut().for_each(|path| path.push(roots.0));
            node_hash(&roots.0, &roots.1)
        }
    }
}

/// The root that `path` leads to from `leaf` at `index` of `size` leaves (RFC 9162, 2.1.3.2); `None` if it cannot.
pub fn root_by_path(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962 section 2.1, word for word.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&by_definition(&leaves[..split]), &by_definition(&leaves[split..]))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn the_growing_root_is_the_defined_root() {
        for count in 0..70 {
            assert_eq!(root(leaves(count)), by_definition(&leaves(count)), "{count} leaves");
        }
    }

    proptest! {
        #[test]
        fn every_leaf_has_a_path_to_the_root_and_no_other_leaf_uses_it(count in 1_usize..130, pick in any::<prop::sample::Index>()) {
            let leaves = leaves(count);
            let index = pick.index(count);
            let path = inclusion_paths(&leaves).swap_remove(index);
            let (at, size) = (index as u64, count as u64);
            prop_assert_eq!(root_by_path(leaves[index], at, size, &path), Some(root(leaves.clone())));
            prop_assert_ne!(root_by_path(leaf_hash(b"another"), at, size, &path), Some(root(leaves.clone())));
            prop_assert_eq!(root_by_path(leaves[index], size, size, &path), None);
        }
    }

    #[test]
    fn a_range_with_the_wrong_number_of_peaks_is_refused() {
        assert!(CompactRange::from_peaks(3, leaves(1)).is_none());
        assert!(CompactRange::from_peaks(3, leaves(2)).is_some());
    }
}
