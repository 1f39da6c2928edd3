//! Key words: what two people read to each other on the phone to know that they speak of the same key.

use crate::replica::ids::sha256;

/// Number of key words: 8 of 2,048 are 88 bits, out of reach for who would make a second request with the same words.
pub const KEY_WORDS: usize = 8;
const WORD_BITS: usize = 11;

/// The key words of `bytes`: the first 88 bits of its SHA-256, eleven bits a word.
pub fn key_words(bytes: &[u8]) -> String {
    let digest = sha256(&[bytes]);
    let list = bip39::Language::English.word_list();
    let bit = |at: usize| usize::from(digest[at / 8] >> (7 - at % 8) & 1);
    let word = |number: usize| (0..WORD_BITS).fold(0, |index, i| index << 1 | bit(number * WORD_BITS + i));
    (0..KEY_WORDS).map(|number| list[word(number)]).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_words_are_eight_and_depend_on_every_byte() {
        // SHA-256 of "abc" is ba7816bf..: 10111010011 is 1491, the first word.
        let words = key_words(b"abc");
        let list = bip39::Language::English.word_list();
        assert_eq!(words.split('-').count(), 8);
        assert_eq!(words.split('-').next().unwrap(), list[0b101_1101_0011]);
        assert_ne!(words, key_words(b"abd"));
    }
}
