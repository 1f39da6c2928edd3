//! MD5, SHA-1, SHA-256 and SHA-512 of a stream, read once (SIGNALS.md).

use std::io::{self, Read};

use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest as _;
use sha2::{Sha256, Sha512};

/// Bytes read at a time: large enough that the system calls do not show, small enough to stay in the cache while
/// four functions pass over it.
const CHUNK_BYTES: usize = 64 * 1024;

/// The four digests of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Length of what was digested in bytes.
    pub length: u64,
    /// MD5, 16 bytes.
    pub md5: [u8; 16],
    /// SHA-1, 20 bytes.
    pub sha1: [u8; 20],
    /// SHA-256, 32 bytes.
    pub sha256: [u8; 32],
    /// SHA-512, 64 bytes.
    pub sha512: [u8; 64],
}

impl Digests {
    /// Digests of everything that `reader` gives, in one pass and constant memory.
    ///
    /// # Errors
    /// What the reader reports, except interruptions, which are tried again.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut running = Running::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(running.finish()),
                Ok(n) => running.update(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Digests of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut running = Running::default();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            running.update(chunk);
        }
        running.finish()
    }
}

#[derive(Default)]
struct Running {
    length: u64,
    md5: Md5,
    sha1: Sha1,
    sha256: Sha256,
    sha512: Sha512,
}

impl Running {
    fn update(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.md5.update(bytes);
        self.sha1.update(bytes);
        self.sha256.update(bytes);
        self.sha512.update(bytes);
    }

    fn finish(self) -> Digests {
        Digests {
            length: self.length,
            md5: self.md5.finalize().into(),
            sha1: self.sha1.finalize().into(),
            sha256: self.sha256.finalize().into(),
            sha512: self.sha512.finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::hex;

    #[test]
    fn the_digests_of_known_words_are_the_published_ones() {
        let of_abc = Digests::of_bytes(b"abc");
        assert_eq!(hex(&of_abc.md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(&of_abc.sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&of_abc.sha256), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex(&of_abc.sha512),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
        assert_eq!(hex(&Digests::of_bytes(b"").md5), "d41d8cd98f00b204e9800998ecf8427e");
    }

    /// Gives one byte, is interrupted, gives the next: what a slow pipe does.
    struct Trickle<'a> {
        rest: &'a [u8],
        interrupted: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = self.rest.len().min(1);
            into[..n].copy_from_slice(&self.rest[..n]);
            self.rest = &self.rest[n..];
            Ok(n)
        }
    }

    #[test]
    fn how_the_bytes_arrive_does_not_matter() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let whole = Digests::of_bytes(&bytes);
        assert_eq!(whole.length, 200_000);
        assert_eq!(Digests::of_reader(Trickle { rest: &bytes, interrupted: false }).unwrap(), whole);
        assert_eq!(Digests::of_reader(bytes.as_slice()).unwrap(), whole);
    }
}
