//! Media file -> hashes: the four digests of every file, and PDQ of what is an image (SIGNALS.md).
//!
//! No bytes of a file leave this module; only its hashes do.

pub mod digests;
pub mod drawn;
pub mod image;
pub mod pdq;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use self::digests::Digests;
pub use self::image::ImageError;
pub use self::pdq::{Pdq, pdq};

/// All that is said about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// Of the bytes, whatever they are.
    pub digests: Digests,
    /// Of the picture, if the bytes begin like JPEG, PNG, WebP, GIF or BMP. Look at its quality before using it.
    pub image: Option<Pdq>,
}

/// Why a file has no hashes.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, a pipe, a device: these may never end.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// The file begins like an image and is none that we can use.
    #[error("cannot hash the picture in {}", path.display())]
    Image {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
}

/// The hashes of the file at `path`. A file that is no image is streamed and may have any length.
///
/// # Errors
/// [`HashingError`], naming the file. A broken image is an error, not a file without a picture: listing only its
/// digests is a decision for a person ([`digest_file`]).
pub fn hash_file(path: &Path) -> Result<FileHashes, HashingError> {
    let unreadable = |source| HashingError::Read { path: path.to_owned(), source };
    let mut file = open(path)?;
    let mut head = Vec::with_capacity(image::SNIFF_BYTES);
    file.by_ref().take(image::SNIFF_BYTES as u64).read_to_end(&mut head).map_err(unreadable)?;
    if image::sniff(&head).is_none() {
        let digests = Digests::of_reader(head.chain(file)).map_err(unreadable)?;
        return Ok(FileHashes { digests, image: None });
    }
    // One byte more than is allowed, so that a longer file shows without being read.
    let rest_max = image::FILE_BYTES_MAX + 1 - head.len() as u64;
    file.take(rest_max).read_to_end(&mut head).map_err(unreadable)?;
    hash_bytes(&head).map_err(|source| HashingError::Image { path: path.to_owned(), source })
}

/// The hashes of a file that is in memory.
///
/// # Errors
/// [`ImageError`] if `bytes` begin like an image and are none that we can use.
pub fn hash_bytes(bytes: &[u8]) -> Result<FileHashes, ImageError> {
    let head = &bytes[..bytes.len().min(image::SNIFF_BYTES)];
    let image = match image::sniff(head) {
        Some(format) => {
            let pixels = image::decode(format, bytes)?;
            Some(pdq(pixels.width(), pixels.height(), pixels.as_raw()))
        }
        None => None,
    };
    Ok(FileHashes { digests: Digests::of_bytes(bytes), image })
}

/// Only the digests of the file at `path`, without a look at what is in it.
///
/// # Errors
/// [`HashingError::Read`] and [`HashingError::NotAFile`].
pub fn digest_file(path: &Path) -> Result<Digests, HashingError> {
    Digests::of_reader(open(path)?).map_err(|source| HashingError::Read { path: path.to_owned(), source })
}

fn open(path: &Path) -> Result<File, HashingError> {
    let unreadable = |source| HashingError::Read { path: path.to_owned(), source };
    // Asked before opening: opening a pipe waits for somebody to write into it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(HashingError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(unreadable)
}
