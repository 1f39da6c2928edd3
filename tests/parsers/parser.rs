//! A parser of what strangers give us. Also a part of the targets in `fuzz/`.

/// What a parser must withstand.
pub(crate) struct Parser {
    /// As it is called in messages.
    pub name: &'static str,
    /// Inputs when the environment asks for no number.
    pub inputs: u64,
    /// What is changed: well-formed inputs of every kind.
    pub corpus: Vec<Vec<u8>>,
    /// Most bytes that `check` may hold at once for an input.
    pub memory_max: fn(&[u8]) -> usize,
    /// Makes some of the changed inputs whole again where a checksum would end every one of them at once.
    pub repair: fn(&mut [u8]),
    /// Panics or asserts when something is wrong with what was made of the bytes.
    pub check: fn(&[u8]),
}
