//! BLAKE3 of a device's output, in a form that can be saved and gone on with.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};

/// Bytes of a piece of the stream that is hashed at once; a power of two of at least 1 KiB (BLAKE3's chunk).
const PIECE: usize = 64 << 10;

/// The hash of a stream so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamHash {
    /// The subtrees of the whole pieces so far, largest first, as in a binary number.
    trees: Vec<ChainingValue>,
    pieces: u64,
    /// The last piece: at least one byte of it, as soon as there is any.
    tail: Vec<u8>,
}

impl StreamHash {
    /// Goes on with these bytes.
    pub(crate) fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.tail.len() == PIECE {
                self.shift();
            }
            let (head, rest) = data.split_at(data.len().min(PIECE - self.tail.len()));
            self.tail.extend_from_slice(head);
            data = rest;
        }
    }

    /// The tail is a whole piece, and not the last one.
    fn shift(&mut self) {
        let mut tree = self.subtree();
        self.pieces += 1;
        let mut pieces = self.pieces;
        while pieces & 1 == 0 {
            let left = self.trees.pop().expect("one for each bit");
            tree = merge_subtrees_non_root(&left, &tree, Mode::Hash);
            pieces >>= 1;
        }
        self.trees.push(tree);
        self.tail.clear();
    }

    fn subtree(&self) -> ChainingValue {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(self.pieces * PIECE as u64);
        hasher.update(&self.tail);
        hasher.finalize_non_root()
    }

    /// BLAKE3 of the stream.
    pub(crate) fn finish(&self) -> [u8; 32] {
        let Some((first, others)) = self.trees.split_first() else { return *blake3::hash(&self.tail).as_bytes() };
        let right =
            others.iter().rev().fold(self.subtree(), |right, left| merge_subtrees_non_root(left, &right, Mode::Hash));
        *merge_subtrees_root(first, &right, Mode::Hash).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_blake3_however_the_stream_is_cut_and_saved() {
        let stream: Vec<u8> =
            (0..PIECE as u32 * 11 + 77).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let ends = [0, 1, 1024, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5, 8 * PIECE, stream.len()];
        for end in ends {
            for cut in [997, PIECE, 3 * PIECE + 1] {
                let mut hash = StreamHash::default();
                for (i, piece) in stream[..end].chunks(cut).enumerate() {
                    hash.update(piece);
                    if i % 7 == 0 {
                        let saved = postcard::to_stdvec(&hash).unwrap();
                        hash = postcard::from_bytes(&saved).unwrap();
                    }
                }
                assert_eq!(hash.finish(), *blake3::hash(&stream[..end]).as_bytes(), "{end} bytes, cut by {cut}");
            }
        }
    }
}
