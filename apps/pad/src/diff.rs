//! What differs between two texts: by lines first, then within changed lines by characters as people see them.
//!
//! Lines are compared by Myers' algorithm with git's bound on the search (`similar`) and a cap on its input, so
//! a hard case costs a coarser difference, not time. Characters are grapheme clusters: an emoji of five code
//! points or a letter with its accents is kept or replaced as a whole, so that a merge never puts half of one
//! beside half of another.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};
use unicode_segmentation::UnicodeSegmentation as _;

/// Items of one comparison by Myers' algorithm: half a second in the worst case (measured: random lines of a
/// thousand kinds). More is cut at items that both sides have exactly once, as patience diff does.
const ITEMS_MAX: usize = 100_000;

/// Grapheme clusters of changed lines, old and new, that are compared one by one. More is a rewrite.
const GRAPHEMES_MAX: usize = 16 * 1024;

/// `old` of the base is replaced by `new` of the new sequence; everything around it is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub(crate) old: Range<usize>,
    pub(crate) new: Range<usize>,
}

/// What makes one text of another, and how much of it a person would say has changed.
#[derive(Debug, Default)]
pub(crate) struct TextDiff {
    /// In bytes, in order, with something equal between any two.
    pub(crate) edits: Vec<Hunk>,
    pub(crate) lines_added: usize,
    pub(crate) lines_removed: usize,
}

/// The difference of two texts.
pub(crate) fn texts(old: &str, new: &str) -> TextDiff {
    let (old_lines, new_lines) = (lines(old), lines(new));
    let (old_starts, new_starts) = (starts(&old_lines), starts(&new_lines));
    let mut diff = TextDiff::default();
    for hunk in hunks(&old_lines, &new_lines) {
        diff.lines_removed = diff.lines_removed.saturating_add(hunk.old.len());
        diff.lines_added = diff.lines_added.saturating_add(hunk.new.len());
        let old_bytes = bytes(&old_starts, &hunk.old);
        let new_bytes = bytes(&new_starts, &hunk.new);
        let old_part = old.get(old_bytes.clone()).unwrap_or_default();
        let new_part = new.get(new_bytes.clone()).unwrap_or_default();
        let edits = within(old_part, new_part).into_iter();
        diff.edits.extend(edits.map(|edit| edit.shifted(old_bytes.start, new_bytes.start)));
    }
    diff
}

/// The lines of a text, each with its line end.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// What differs between two sequences, in order.
pub(crate) fn hunks<T: Hash + Ord>(old: &[T], new: &[T]) -> Vec<Hunk> {
    if is_small(old, new) {
        return compared(old, new);
    }
    let mut hunks = Vec::new();
    let (mut old_at, mut new_at) = (0, 0);
    for (old_end, new_end) in anchors(old, new).into_iter().chain([(old.len(), new.len())]) {
        let old_gap = old.get(old_at..old_end).unwrap_or_default();
        let new_gap = new.get(new_at..new_end).unwrap_or_default();
        hunks.extend(compared(old_gap, new_gap).iter().map(|hunk| hunk.shifted(old_at, new_at)));
        // The anchors themselves are compared as the beginning of the next gap.
        (old_at, new_at) = (old_end, new_end);
    }
    joined(hunks.into_iter())
}

/// What differs between two sequences; everything between their equal beginning and end if that is too much.
fn compared<T: Hash + Ord>(old: &[T], new: &[T]) -> Vec<Hunk> {
    let (start, old_end, new_end) = trimmed(old, new);
    let (old, new) = match (old.get(start..old_end), new.get(start..new_end)) {
        (Some(old), Some(new)) if !old.is_empty() || !new.is_empty() => (old, new),
        _ => return Vec::new(),
    };
    if old.is_empty() || new.is_empty() || !is_small(old, new) {
        return vec![Hunk { old: start..old_end, new: start..new_end }];
    }
    let ops = capture_diff_slices(Algorithm::Myers, old, new);
    let differing = ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. }));
    joined(differing.map(|op| Hunk { old: op.old_range(), new: op.new_range() }.shifted(start, start)))
}

const fn is_small<T>(old: &[T], new: &[T]) -> bool {
    old.len().saturating_add(new.len()) <= ITEMS_MAX
}

/// Where items are that both sides have exactly once, as many as stand in the same order on both sides.
fn anchors<T: Ord>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    // How often each item is on either side, and where it was last.
    let mut places: BTreeMap<&T, [(usize, usize); 2]> = BTreeMap::new();
    for (side, items) in [old, new].into_iter().enumerate() {
        for (at, item) in items.iter().enumerate() {
            if let Some((count, last)) = places.entry(item).or_default().get_mut(side) {
                (*count, *last) = (count.saturating_add(1), at);
            }
        }
    }
    let unique = places
        .into_values()
        .filter_map(|[(in_old, old), (in_new, new)]| (in_old == 1 && in_new == 1).then_some((old, new)));
    let mut unique: Vec<(usize, usize)> = unique.collect();
    unique.sort_unstable();
    longest_rising(&unique)
}

/// The longest subsequence of `pairs` in which the second numbers rise.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let second = |index: usize| pairs.get(index).map_or(0, |pair| pair.1);
    // By length: the pair that ends such a sequence with the smallest number. By pair: the one before it.
    let (mut ends, mut before): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    for index in 0..pairs.len() {
        let length = ends.partition_point(|end| second(*end) < second(index));
        before.push(length.checked_sub(1).and_then(|length| ends.get(length)).copied());
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let chain = std::iter::successors(ends.last().copied(), |index| before.get(*index).copied().flatten());
    let mut rising: Vec<(usize, usize)> = chain.filter_map(|index| pairs.get(index).copied()).collect();
    rising.reverse();
    rising
}

impl Hunk {
    fn shifted(&self, old: usize, new: usize) -> Self {
        let shift = |range: &Range<usize>, by| range.start.saturating_add(by)..range.end.saturating_add(by);
        Self { old: shift(&self.old, old), new: shift(&self.new, new) }
    }
}

/// Hunks that touch become one: a deletion and an insertion at one place are a replacement.
fn joined(hunks: impl Iterator<Item = Hunk>) -> Vec<Hunk> {
    let mut joined: Vec<Hunk> = Vec::new();
    for hunk in hunks {
        match joined.last_mut() {
            Some(last) if last.old.end == hunk.old.start && last.new.end == hunk.new.start => {
                last.old.end = hunk.old.end;
                last.new.end = hunk.new.end;
            }
            _ => joined.push(hunk),
        }
    }
    joined
}

/// What is left of two sequences without their equal beginning and end: a start and two ends.
fn trimmed<T: PartialEq>(old: &[T], new: &[T]) -> (usize, usize, usize) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = |items: &[T]| items.len().saturating_sub(start);
    let both = old.iter().rev().zip(new.iter().rev()).take(rest(old).min(rest(new)));
    let end = both.take_while(|(old, new)| old == new).count();
    (start, old.len().saturating_sub(end), new.len().saturating_sub(end))
}

/// What differs within lines that are not equal.
fn within(old: &str, new: &str) -> Vec<Hunk> {
    let (old_parts, new_parts): (Vec<&str>, Vec<&str>) =
        (old.graphemes(true).collect(), new.graphemes(true).collect());
    let (start, old_end, new_end) = trimmed(&old_parts, &new_parts);
    let changed = old_end.saturating_add(new_end).saturating_sub(start.saturating_mul(2));
    let mut edits = vec![Hunk { old: start..old_end, new: start..new_end }];
    if changed <= GRAPHEMES_MAX {
        let finer = hunks(&old_parts, &new_parts);
        if alike(&edits, &finer) {
            edits = finer;
        }
    }
    let (old_starts, new_starts) = (starts(&old_parts), starts(&new_parts));
    let in_bytes =
        |edit: &Hunk| Hunk { old: bytes(&old_starts, &edit.old), new: bytes(&new_starts, &edit.new) };
    edits.iter().map(in_bytes).collect()
}

/// Whether the finer difference keeps at least half of the shorter side. Two unrelated lines share letters by
/// chance; keeping those would scatter what somebody else types meanwhile between the letters of the new line.
fn alike(coarse: &[Hunk], fine: &[Hunk]) -> bool {
    let sum = |hunks: &[Hunk], of: fn(&Hunk) -> usize| hunks.iter().map(of).fold(0, usize::saturating_add);
    let (old, new) = (sum(coarse, |hunk| hunk.old.len()), sum(coarse, |hunk| hunk.new.len()));
    let kept = old.saturating_sub(sum(fine, |hunk| hunk.old.len()));
    kept.saturating_mul(2) >= old.min(new)
}

/// Where each part begins in bytes, and where the last one ends.
fn starts(parts: &[&str]) -> Vec<usize> {
    let ends = parts.iter().scan(0usize, |at, part| {
        *at = at.saturating_add(part.len());
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

fn bytes(starts: &[usize], parts: &Range<usize>) -> Range<usize> {
    let at = |index: usize| starts.get(index).or(starts.last()).copied().unwrap_or_default();
    at(parts.start)..at(parts.end)
}
