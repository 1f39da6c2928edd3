//! Media file -> hashes: the four digests of every file, PDQ of what is an image, PDQ of the frames of what is a video, TLSH
//! of what is neither (SIGNALS.md).
//!
//! No bytes of a file leave this module; only its hashes do.

pub mod digests;
pub mod drawn;
pub mod image;
pub mod pdq;
pub mod pool;
pub mod tlsh;
pub mod video;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use self::digests::Digests;
pub use self::image::ImageError;
pub use self::pdq::{Pdq, pdq};
pub use self::pool::{Pool, PoolError};
pub use self::tlsh::Document;
pub use self::video::{Frame, VideoError};

use ::image::RgbImage;

use self::image::Orientation;
use self::tlsh::{DocumentHasher, Reading};
use crate::replica::signal::{Alg, Subject};
use crate::replica::vpdq::FRAMES_PER_RECORD_MAX;

/// All that is said about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// Of the bytes, whatever they are.
    pub digests: Digests,
    /// Of the picture, if the bytes begin like JPEG, PNG, WebP, GIF or BMP. Look at its quality before using it.
    pub image: Option<Pdq>,
    /// Of the picture as a viewer shows it, if the file has a tag that says to turn it: somebody may have listed what
    /// they saw. To look up beside the others, never to be listed. At most one, but of [`hash_file_in_all_positions`].
    pub variants: Vec<Pdq>,
    /// Of what is neither picture nor video, as a document: its TLSH, or why it has none.
    pub document: Option<Document>,
    /// The usable frames, if the bytes begin like a video; or why there are none.
    pub video: Option<Result<Vec<Frame>, VideoError>>,
}

impl FileHashes {
    /// What can be listed of the file: the picture, the document or the records of the video first, then the digests.
    pub fn subjects(&self) -> Vec<Subject> {
        self.subjects_with(self.listed_video())
    }

    /// The same with these records of the video.
    pub fn subjects_with(&self, video: Vec<Subject>) -> Vec<Subject> {
        let picture = self.image.map(|image| Subject::of(Alg::Pdq, &image.hash));
        let document = self.document.as_ref().and_then(Document::tlsh).map(|tlsh| Subject::of(Alg::Tlsh, tlsh));
        let digests = digests_as_subjects(&self.digests);
        picture.into_iter().chain(document).chain(video).chain(digests).collect()
    }

    /// The records that list the video: each hash once.
    pub fn listed_video(&self) -> Vec<Subject> {
        self.frames().map(|frames| in_records(&video::listed(frames))).unwrap_or_default()
    }

    /// The records that look the video up: every usable frame, because a share is counted of them; at most
    /// `records_max`, and of a longer video frames at even distances.
    pub fn looked_up_video(&self, records_max: usize) -> Vec<Subject> {
        let frames_max = records_max * FRAMES_PER_RECORD_MAX;
        self.frames().map(|frames| in_records(&video::thinned(frames, frames_max))).unwrap_or_default()
    }

    /// The usable frames of the video.
    pub fn frames(&self) -> Option<&[Frame]> {
        self.video.as_ref()?.as_deref().ok()
    }
}

/// Frames are in order, and parts of a list in order are: nothing is left out here.
fn in_records(frames: &[Frame]) -> Vec<Subject> {
    frames.chunks(FRAMES_PER_RECORD_MAX).filter_map(|part| Subject::of_frames(part).ok()).collect()
}

fn digests_as_subjects(digests: &Digests) -> [Subject; 4] {
    [
        Subject::of(Alg::Md5, &digests.md5),
        Subject::of(Alg::Sha1, &digests.sha1),
        Subject::of(Alg::Sha256, &digests.sha256),
        Subject::of(Alg::Sha512, &digests.sha512),
    ]
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

/// What is read of a file to find out what it is: what the hungrier of [`image::sniff`] and [`video::is_video`] wants.
const HEAD_BYTES: usize = if image::SNIFF_BYTES > video::SNIFF_BYTES { image::SNIFF_BYTES } else { video::SNIFF_BYTES };

/// The hashes of the file at `path`. A file that is no image is streamed and may have any length.
///
/// # Errors
/// [`HashingError`], naming the file. A video whose frames cannot be had has its digests all the same, and says why. A
/// broken image is an error, not a file without a picture: listing only its
/// digests is a decision for a person ([`digest_file`]).
pub fn hash_file(path: &Path) -> Result<FileHashes, HashingError> {
    hash_file_with(path, hash_bytes)
}

/// The same, and among the variants of a picture its eight positions.
///
/// # Errors
/// As [`hash_file`].
pub fn hash_file_in_all_positions(path: &Path) -> Result<FileHashes, HashingError> {
    hash_file_with(path, |bytes| {
        let (mut hashes, positions) = hash_positions(bytes)?;
        hashes.variants.extend(positions.into_iter().flatten());
        Ok(hashes)
    })
}

/// `of_picture` is given a whole file that begins like a picture.
fn hash_file_with(
    path: &Path,
    of_picture: impl FnOnce(&[u8]) -> Result<FileHashes, ImageError>,
) -> Result<FileHashes, HashingError> {
    let unreadable = |source| HashingError::Read { path: path.to_owned(), source };
    let mut file = open(path)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(unreadable)?;
    if image::sniff(&head[..head.len().min(image::SNIFF_BYTES)]).is_none() {
        let is_video = video::is_video(&head);
        let mut hasher = DocumentHasher::default();
        let reading = Reading { inner: head.chain(file), hasher: &mut hasher };
        let digests = Digests::of_reader(reading).map_err(unreadable)?;
        let video = is_video.then(|| video::usable_frames_of(path));
        return Ok(FileHashes {
            digests,
            image: None,
            variants: Vec::new(),
            document: (!is_video).then(|| document(&head, || hasher.finish())),
            video,
        });
    }
    // One byte more than is allowed, so that a longer file shows without being read.
    let rest_max = image::FILE_BYTES_MAX + 1 - head.len() as u64;
    file.take(rest_max).read_to_end(&mut head).map_err(unreadable)?;
    of_picture(&head).map_err(|source| HashingError::Image { path: path.to_owned(), source })
}

/// The hashes of a file that is in memory.
///
/// # Errors
/// [`ImageError`] if `bytes` begin like an image and are none that we can use.
pub fn hash_bytes(bytes: &[u8]) -> Result<FileHashes, ImageError> {
    Ok(hash_with(bytes, |_| ())?.0)
}

/// The same, and of a picture its hashes in all eight positions, as [`pdq::pdq_dihedral`] has them.
///
/// # Errors
/// As [`hash_bytes`].
pub fn hash_positions(bytes: &[u8]) -> Result<(FileHashes, Option<[Pdq; 8]>), ImageError> {
    hash_with(bytes, |pixels| pdq::pdq_dihedral(pixels.width(), pixels.height(), pixels.as_raw()))
}

/// `more` is asked of the pixels, if there are any.
fn hash_with<T>(bytes: &[u8], more: impl FnOnce(&RgbImage) -> T) -> Result<(FileHashes, Option<T>), ImageError> {
    let head = &bytes[..bytes.len().min(image::SNIFF_BYTES)];
    let digests = Digests::of_bytes(bytes);
    let Some(format) = image::sniff(head) else {
        // Frames are read from a file only.
        let document = (!video::is_video(bytes)).then(|| document(head, || Document::of_bytes(bytes)));
        return Ok((FileHashes { digests, image: None, variants: Vec::new(), document, video: None }, None));
    };
    let (pixels, orientation) = image::decode_with_orientation(format, bytes)?;
    let (image, more) = (Some(pdq_of(&pixels)), Some(more(&pixels)));
    let variants = match orientation {
        Orientation::NoTransforms => Vec::new(),
        turned => vec![pdq_of(&image::upright(pixels, turned))],
    };
    Ok((FileHashes { digests, image, variants, document: None, video: None }, more))
}

/// What `hashed` says of a file that begins with `head` and is neither picture nor video.
fn document(head: &[u8], hashed: impl FnOnce() -> Document) -> Document {
    if tlsh::is_no_text(head) { Document::NoText } else { hashed() }
}

fn pdq_of(pixels: &RgbImage) -> Pdq {
    pdq(pixels.width(), pixels.height(), pixels.as_raw())
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::replica::ids::hex;
    use crate::replica::signal::{self, GuardRefusal, admit};

    /// JPEG leaves rounding in the inverse transform and in chroma upsampling to the decoder: ours and Pillow's differ
    /// by one in some pixels. Measured over these files: 0 bits for all but the noise picture `wee.jpg`, which has 2.
    const JPEG_DISTANCE_MAX: u32 = 4;

    #[test]
    fn reference_images_hash_as_the_reference_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pdq-reference");
        let Ok(expected) = fs::read_to_string(folder.join("expected.tsv")) else {
            assert!(std::env::var("CI").is_err(), "{} is missing, and CI must not skip it", folder.display());
            println!("skipped: {} is missing", folder.display());
            return;
        };
        for line in expected.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, pdq, quality, md5, sha256] = fields[..] else { panic!("five fields: {line}") };
            let hashes = hash_file(&folder.join(name)).unwrap();
            assert_eq!((hex(&hashes.digests.md5).as_str(), hex(&hashes.digests.sha256).as_str()), (md5, sha256));
            let image = hashes.image.unwrap();
            let listed = signal::parse("pdq", pdq).unwrap();
            let apart = signal::distance(&image.hash, listed.digest().try_into().unwrap());
            let apart_max = if name.ends_with(".png") { 0 } else { JPEG_DISTANCE_MAX };
            assert!(apart <= apart_max, "{name}: {apart} bits apart");
            assert_eq!(image.quality.to_string(), quality, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_image_has_digests_only() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("empty", &b""[..]), ("text", b"BM is how this begins, and it is no bitmap")] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let hashes = hash_file(&path).unwrap();
            let document = Some(Document::TooShort);
            let digests = Digests::of_bytes(bytes);
            assert_eq!(hashes, FileHashes { digests, image: None, variants: Vec::new(), document, video: None });
            assert_eq!(digest_file(&path).unwrap(), hashes.digests);
        }
    }

    #[test]
    fn a_file_that_begins_like_a_video_is_no_document_however_late_that_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film");
        let packet = [&[0x47][..], &[0xff; 187]].concat();
        let ogg = [&b"OggS"[..], &[0; 24], b"\x80theora", &[7; 100]].concat();
        for bytes in [packet.repeat(3), ogg, [&b"\0\0\0\x08wide\0\0\0\0mdat"[..], &[9; 100]].concat()] {
            fs::write(&path, &bytes).unwrap();
            let hashes = hash_file(&path).unwrap();
            // None of them has a picture, and there may be no ffmpeg.
            assert!(hashes.video.is_some() && hashes.document.is_none(), "{hashes:?}");
            assert_eq!(hashes.digests, Digests::of_bytes(&bytes));
        }
    }

    #[test]
    fn what_is_a_picture_that_is_not_read_has_digests_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.heic");
        let bytes = [&b"\0\0\0\x18ftypheic"[..], include_bytes!("mod.rs")].concat();
        fs::write(&path, &bytes).unwrap();
        let hashes = hash_file(&path).unwrap();
        assert_eq!((hashes.document, hashes.subjects().len()), (Some(Document::NoText), 4));
        assert_eq!(hash_bytes(&bytes).unwrap(), hashes);
    }

    #[test]
    fn a_broken_image_is_an_error_with_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.png");
        let whole = drawn::png_bytes(&drawn::poster(1, 60, 40)).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = hash_file(&path).unwrap_err();
        assert!(error.to_string().contains("half.png"), "{error}");
        assert!(error.source().unwrap().to_string().starts_with("damaged PNG image: "));
        assert_eq!(digest_file(&path).unwrap().length, whole.len() as u64 / 2);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(hash_file(folder.path()), Err(HashingError::NotAFile { .. })));
        assert!(matches!(hash_file(&folder.path().join("none")), Err(HashingError::Read { .. })));
    }

    #[test]
    fn an_image_above_the_length_limit_is_refused_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        let write = |head: &[u8]| {
            fs::write(&path, head).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(image::FILE_BYTES_MAX + 1).unwrap();
            hash_file(&path)
        };
        let refused = write(b"\x89PNG\r\n\x1a\n").unwrap_err();
        assert!(matches!(refused, HashingError::Image { source: ImageError::TooLong, .. }), "{refused}");
        assert_eq!(write(b"text").unwrap().digests.length, image::FILE_BYTES_MAX + 1);
    }

    #[test]
    fn a_tag_that_turns_the_picture_adds_a_variant_and_changes_no_hash() {
        let hashes = |number: u8| {
            let name = format!("tests/vectors/images/orientation-{number}.jpg");
            hash_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
        };
        let plain = hashes(1);
        assert_eq!(plain.variants, []);
        for number in 2..=8 {
            let turned = hashes(number);
            assert_eq!((turned.image, turned.variants.len()), (plain.image, 1));
            assert_ne!(turned.variants[0].hash, plain.image.unwrap().hash);
            assert_eq!(turned.subjects().len(), 5, "only the picture as it is stored is listed");
        }
    }

    #[test]
    fn the_subjects_of_a_picture_begin_with_pdq() {
        let hashes = hash_bytes(&drawn::png_bytes(&drawn::poster(1, 60, 40)).unwrap()).unwrap();
        let names: Vec<_> = hashes.subjects().iter().map(|subject| subject.type_name().into_owned()).collect();
        assert_eq!(names, ["pdq", "md5", "sha1", "sha256", "sha512"]);
        assert!(hashes.subjects().iter().all(signal::is_well_formed));
    }

    #[test]
    fn no_blank_picture_is_admitted_whatever_quality_it_claims() {
        for level in 0..=255u8 {
            let blank = pdq(90, 70, &vec![level; 90 * 70 * 3]);
            let refused = admit(&Subject::of(Alg::Pdq, &blank.hash), Some(100));
            let expected = if level == 0 { GuardRefusal::AllZero } else { GuardRefusal::BlankImage };
            assert_eq!((refused, blank.quality), (Err(expected), 0), "grey {level}");
        }
    }

    #[test]
    fn the_harmless_files_of_the_shipped_list_are_not_admitted() {
        let zeros = [1, 512, 1024, 4096, 10_240, 65_536, 1 << 20].map(|length| vec![0; length]);
        let texts = ["\n", "\r\n", " ", "{}", "[]", "null", "\u{feff}"].map(|text| text.as_bytes().to_vec());
        let gzip = |level| [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, level, 3, 3, 0][..], &[0; 8]].concat();
        let zip = [&b"PK\x05\x06"[..], &[0; 18]].concat();
        let gif = |colours: [u8; 6], pixel: &[u8]| {
            let head = &b"GIF89a\x01\0\x01\0\x80\0\0"[..];
            let frame = &b"!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02"[..];
            [head, &colours, frame, pixel, b"\0;"].concat()
        };
        let (white_first, black_first) = ([255, 255, 255, 0, 0, 0], [0, 0, 0, 255, 255, 255]);
        let gifs = [gif(white_first, b"\x02D\x01"), gif(black_first, b"\x02D\x01"), gif(black_first, b"\x01D")];
        let mut checked = 0;
        for bytes in zeros.into_iter().chain(texts).chain([gzip(0), gzip(2), zip]).chain(gifs) {
            for subject in digests_as_subjects(&Digests::of_bytes(&bytes)) {
                assert_eq!(admit(&subject, None), Err(GuardRefusal::KnownHarmless), "{bytes:.60?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 80, "all lines of known_harmless.txt");
    }
}
