//! From records to bytes and back. Every codec starts from nothing in each chunk, so a chunk can be decoded alone.
//!
//! Records are stored as columns: all values of one field together, each as the difference to what its neighbours
//! predict. What is predicted well becomes zeros, and a column of zeros is one byte.

mod end;
mod journal;
mod message;
mod output;
mod swap;

pub(crate) use end::{MAX_DETAIL, decode_end, encode_end};
pub(crate) use journal::{decode_journal, encode_journal};
pub(crate) use message::{decode_messages, encode_messages};
pub(crate) use output::{decode_output, encode_output, take};
pub(crate) use swap::{decode_swaps, encode_swaps};
