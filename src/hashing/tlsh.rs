//! TLSH of a document: a hash whose distance to that of an edited copy is small (SIGNALS.md, `tlsh`).

use std::io::{self, Read};

use tlsh2::TlshDefaultBuilder;

use crate::replica::index::tlsh::Tlsh;

/// Longest document in bytes. Texts and PDF files are far below; what is above costs half a second and is a film or an
/// archive, of which TLSH says nothing. (From some 900 MB on its arithmetic on the quartiles would overflow.)
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Shortest document in bytes: below, the buckets are nearly empty.
const DOCUMENT_BYTES_MIN: u64 = 50;

/// What TLSH makes of a file that is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Its hash.
    Tlsh(Tlsh),
    /// Fewer than 50 bytes say too little.
    TooShort,
    /// Half of the buckets are empty, as with one line over and over.
    TooUniform,
    /// More than [`DOCUMENT_BYTES_MAX`].
    TooLong,
    /// It begins like a picture that is not decoded here, like sound or like an archive.
    NoText,
}

impl Document {
    /// Of a document that is in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut hasher = DocumentHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash, if there is one.
    pub fn tlsh(&self) -> Option<&Tlsh> {
        match self {
            Self::Tlsh(tlsh) => Some(tlsh),
            Self::TooShort | Self::TooUniform | Self::TooLong | Self::NoText => None,
        }
    }

    /// Why there is none, for people.
    pub fn why_none(&self) -> Option<&'static str> {
        match self {
            Self::Tlsh(_) => None,
            Self::TooShort => Some("no tlsh: shorter than 50 bytes"),
            Self::TooUniform => Some("no tlsh: too uniform, the same few characters over and over"),
            Self::TooLong => Some("no tlsh: longer than 64 MiB"),
            Self::NoText => Some("no tlsh: a picture of a kind that is not read here, sound or an archive"),
        }
    }
}

/// Whether a file begins like one of which TLSH says nothing, because its bytes are compressed or are samples: a picture
/// that is not decoded here, sound, an archive. Not ZIP, which office documents are too.
pub(super) fn is_no_text(head: &[u8]) -> bool {
    const MARKS: [&[u8]; 18] = [
        b"II*\0",
        b"MM\0*",
        b"\xff\x0a",                 // JPEG XL
        b"\0\0\0\x0cJXL \r\n\x87\n", // JPEG XL in boxes
        b"\0\0\0\x0cjP  \r\n\x87\n", // JPEG 2000
        b"\xff\x4f\xff\x51",         // JPEG 2000 without boxes
        b"8BPS\0",
        b"ID3",
        b"\xff\xfb", // MP3 without tags
        b"fLaC",
        b"OggS",
        b"#!AMR\n",
        b"\x1f\x8b\x08", // gzip
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd", // Zstandard
        b"BZh91AY&SY",
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07",
    ];
    MARKS.iter().any(|mark| head.starts_with(mark)) || is_in_a_container(head)
}

/// HEIC, AVIF and M4A; WAV.
fn is_in_a_container(head: &[u8]) -> bool {
    matches!(head.get(4..8), Some(b"ftyp")) || head.starts_with(b"RIFF") && matches!(head.get(8..12), Some(b"WAVE"))
}

/// Takes a document piece by piece.
#[derive(Default)]
pub struct DocumentHasher {
    builder: TlshDefaultBuilder,
    length: u64,
}

impl DocumentHasher {
    /// Goes on with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length <= DOCUMENT_BYTES_MAX {
            self.builder.update(bytes);
        }
    }

    /// What came of all of them.
    pub fn finish(&self) -> Document {
        match self.length {
            0..DOCUMENT_BYTES_MIN => Document::TooShort,
            DOCUMENT_BYTES_MIN..=DOCUMENT_BYTES_MAX => self.build().map_or(Document::TooUniform, Document::Tlsh),
            _ => Document::TooLong,
        }
    }

    fn build(&self) -> Option<Tlsh> {
        let text = self.builder.build()?.hash();
        data_encoding::HEXUPPER.decode(text.strip_prefix(b"T1")?).ok()?.try_into().ok()
    }
}

/// Reads through to another reader and hashes what comes by.
pub(super) struct Reading<'a, R> {
    pub(super) inner: R,
    pub(super) hasher: &'a mut DocumentHasher,
}

impl<R: Read> Read for Reading<'_, R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(room)?;
        self.hasher.update(&room[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::{hex, sha256};

    const WORDS: &str = "the forum keeps a list of hashes and each member signs what it says about them so that others can \
        look it up before a post is shown while no picture film text or address ever leaves the company that found it first";

    /// xorshift64, as in scripts/tlsh-vectors.py.
    struct Draw(u64);

    impl Draw {
        fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
        }

        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 32).unwrap() % end
        }
    }

    fn words(number: usize) -> Vec<String> {
        let list: Vec<_> = WORDS.split_whitespace().collect();
        let mut draw = Draw::new(number as u64);
        let count = 8 + draw.below(40) * (number + 1);
        let word = |draw: &mut Draw| {
            let word = list[draw.below(list.len())];
            if draw.below(4) == 0 { format!("{word}{}", draw.below(1000)) } else { word.to_owned() }
        };
        (0..count).map(|_| word(&mut draw)).collect()
    }

    /// As the script makes it.
    fn document(number: usize) -> Vec<u8> {
        let mut draw = Draw::new(1000 + number as u64);
        match number % 4 {
            0 => words(number).join(" ").into_bytes(),
            1 => {
                let mut text = words(number - 1);
                for _ in 0..1 + text.len() * draw.below(12) / 100 {
                    let at = draw.below(text.len());
                    text[at] = "edited".to_owned();
                }
                text.join(" ").into_bytes()
            }
            2 => (0..draw.below(4000)).map(|_| u8::try_from(draw.below(256)).unwrap()).collect(),
            _ => {
                let line: Vec<_> = (0..1 + draw.below(9)).map(|_| u8::try_from(97 + draw.below(26)).unwrap()).collect();
                line.repeat(draw.below(60))
            }
        }
    }

    #[test]
    fn two_hundred_documents_hash_as_py_tlsh_has_them() {
        let mut hashed = 0;
        for line in include_str!("../../tests/vectors/tlsh.tsv").lines().filter(|line| line.starts_with("document")) {
            let [_, number, digest, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let text = document(number.parse().unwrap());
            assert_eq!(&hex(&sha256(&[&text]))[..32], digest, "document {number} is generated as the script does");
            let ours = Document::of_bytes(&text);
            let printed = ours.tlsh().map_or("none".to_owned(), |tlsh| format!("T1{}", hex(tlsh).to_uppercase()));
            assert_eq!(printed, expected, "document {number}");
            assert_eq!(ours.tlsh().is_none(), ours.why_none().is_some());
            hashed += 1;
        }
        assert_eq!(hashed, 200);
    }

    #[test]
    fn pictures_sound_and_archives_are_told_from_documents() {
        for head in [&b"II*\0"[..], b"\0\0\0\x18ftypheic", b"RIFF\0\0\0\0WAVEfmt ", b"ID3\x04", b"\x1f\x8b\x08\0"] {
            assert!(is_no_text(head), "{head:?}");
        }
        for head in [&b""[..], b"%PDF-1.7", b"PK\x03\x04", b"RIFF", b"I am", b"<svg xmlns", b"\xff\xfe", b"BZh"] {
            assert!(!is_no_text(head), "{head:?}");
        }
    }

    #[test]
    fn what_has_no_hash_says_why() {
        let text = document(100);
        let mut pieces = DocumentHasher::default();
        text.chunks(7).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), Document::of_bytes(&text), "however it is cut");
        assert_eq!(Document::of_bytes(&text[..49]), Document::TooShort);
        assert!(Document::of_bytes(&text[..50]).tlsh().is_some());
        assert_eq!(Document::of_bytes(&[b'a'; 5_000]), Document::TooUniform);
        let mut long = DocumentHasher { length: DOCUMENT_BYTES_MAX - 1, ..DocumentHasher::default() };
        long.update(b"a");
        assert_eq!(long.finish(), Document::TooUniform);
        long.update(b"a");
        assert_eq!(long.finish(), Document::TooLong);
    }
}
