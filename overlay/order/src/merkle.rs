//! Hash trees: a short proof that something stands at a place of a list.
//!
//! A leaf, an inner node and a whole tree are hashed under different labels, and the root says how many leaves
//! there are: so an inner node is no leaf, and a path proves the place as well as the content.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, hash, hash_bytes};

fn node(left: &Digest, right: &Digest) -> Digest {
    let both = [left.as_bytes().as_slice(), right.as_bytes()].concat();
    Digest::from_bytes(hash_bytes("wattle order node v1", &both))
}

fn root_of(count: u64, top: &Digest) -> Digest {
    Digest::from_bytes(hash("wattle order tree v1", &(count, top)))
}

/// The hash of one transaction.
#[must_use]
pub fn transaction_hash(transaction: &[u8]) -> Digest {
    Digest::from_bytes(hash_bytes("wattle order transaction v1", transaction))
}

/// One level up: pairs are joined, one left over goes up as it is.
fn above(level: &[Digest]) -> Vec<Digest> {
    let join = |pair: &[Digest]| match pair {
        [left, right] => node(left, right),
        rest => rest.first().copied().unwrap_or_default(),
    };
    level.chunks(2).map(join).collect()
}

/// The root of the tree over a list.
#[must_use]
pub fn tree_root(leaves: &[Digest]) -> Digest {
    let count = leaves.len() as u64;
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = above(&level);
    }
    root_of(count, &level.first().copied().unwrap_or_default())
}

/// The tree over a list, for many paths: 64 bytes a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves upwards; the last has one.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Over a list.
    #[must_use]
    pub fn of(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            levels.push(above(level));
        }
        Self { levels }
    }

    /// A leaf; none if there is none at that place.
    #[must_use]
    pub fn leaf(&self, index: usize) -> Option<Digest> {
        self.levels.first()?.get(index).copied()
    }

    /// The path of one leaf; none if it is not there.
    #[must_use]
    pub fn path(&self, index: usize) -> Option<Path> {
        self.leaf(index)?;
        let count = self.levels.first()?.len() as u64;
        let neighbour = |(height, level): (usize, &Vec<Digest>)| level.get((index >> height) ^ 1).copied();
        let neighbours = self.levels.iter().enumerate().filter_map(neighbour).collect();
        Some(Path { index: index as u64, count, neighbours })
    }
}

/// Where a leaf stands, and what leads from it to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Its place, from 0.
    pub index: u64,
    /// How many leaves there are.
    pub count: u64,
    /// The neighbours from the leaf upwards.
    pub neighbours: Vec<Digest>,
}

impl Path {
    /// The root to which a leaf leads; none if the path cannot belong to a tree of that many leaves.
    #[must_use]
    pub fn root(&self, leaf: &Digest) -> Option<Digest> {
        if self.index >= self.count {
            return None;
        }
        let (mut place, mut width, mut hash) = (self.index, self.count, *leaf);
        let mut neighbours = self.neighbours.iter();
        while width > 1 {
            // The last of an odd level goes up as it is.
            if place ^ 1 < width {
                let neighbour = neighbours.next()?;
                hash = if place & 1 == 0 { node(&hash, neighbour) } else { node(neighbour, &hash) };
            }
            place /= 2;
            width = width.div_ceil(2);
        }
        neighbours.next().is_none().then(|| root_of(self.count, &hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_of_every_small_tree_has_a_path_and_no_other_leaf_or_place_fits_it() {
        for count in 1..20u8 {
            let leaves: Vec<Digest> = (0..count).map(|leaf| transaction_hash(&[leaf])).collect();
            let (root, tree) = (tree_root(&leaves), Tree::of(leaves.clone()));
            for (index, leaf) in leaves.iter().enumerate() {
                let path = tree.path(index).unwrap();
                assert_eq!(path.root(leaf), Some(root));
                assert_ne!(path.root(&transaction_hash(&[99])), Some(root));
                for other in 0..u64::from(count) + 2 {
                    let moved = Path { index: other, ..path.clone() };
                    assert!(other == path.index || moved.root(leaf) != Some(root));
                    let resized = Path { count: other, ..path.clone() };
                    assert!(other == path.count || resized.root(leaf) != Some(root));
                }
            }
        }
        assert_eq!(Tree::of(Vec::new()).path(0), None);
    }
}
