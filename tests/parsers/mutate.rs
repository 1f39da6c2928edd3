//! One to four changes of an input, drawn from a seed.

use staydown::replica::exchange::Draw;

/// One of the corpus with one to four changes.
#[expect(clippy::cast_possible_truncation, reason = "the numbers drawn are below the length of an input")]
pub(crate) fn mutated(corpus: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    let pick = |draw: &mut Draw| &corpus[draw.below(corpus.len() as u64) as usize];
    let mut bytes = pick(draw).clone();
    for _ in 0..=draw.below(4) {
        let len = bytes.len() as u64;
        let at = draw.below(len.max(1)) as usize;
        let end = (at + draw.below(16) as usize).min(bytes.len());
        match draw.below(8) {
            0..=2 if len > 0 => bytes[at] ^= 1 << draw.below(8),
            3 if len > 0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][draw.below(5) as usize],
            4 => bytes.insert(at, draw.number() as u8),
            5 if len > 0 => drop(bytes.drain(at..end)),
            6 => {
                let other = pick(draw);
                let from = draw.below(other.len() as u64 + 1) as usize;
                let to = (from + draw.below(64) as usize).min(other.len());
                drop(bytes.splice(at..end.max(at), other[from..to].iter().copied()));
            }
            7 if draw.below(8) == 0 => bytes.truncate(at),
            _ => {
                let repeated = bytes[at.min(end)..end].to_vec();
                drop(bytes.splice(at..at, repeated));
            }
        }
    }
    bytes
}
