//! Hashing beside the async threads: a few workers, a queue that ends, and bounds on the memory of all files together.
//!
//! A file waits in two lines: for a worker, and then, once its header has said how many pixels it has, for room for
//! them. What it holds travels with the work, so that a caller who goes away early does not make room that is not there.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{self, JoinHandle};
use tokio::time;

use super::image::{self, ImageError};
use super::{FileHashes, Pdq, hash_bytes, hash_positions};

/// Most files that wait while every worker is busy. A photograph of 12 megapixels takes a fifth of a second, so the
/// last of them waits a dozen seconds on two cores; whoever comes after that is told at once and can go elsewhere.
pub const WAITING_MAX: usize = 128;

/// Longest file taken, in bytes, whatever it is: the length of an image that is read. Longer ones are streamed by
/// `hash_file`.
pub const FILE_BYTES_MAX: u64 = image::FILE_BYTES_MAX;

/// Most bytes of all files that are waiting or under way: eight of the longest.
pub const BYTES_HELD_MAX: u64 = 8 * FILE_BYTES_MAX;

/// Most pixels of all pictures that are being decoded: two of the largest. A pixel takes up to eleven bytes (four
/// 16-bit channels, and RGB beside them), so this is about one gigabyte at the very worst and 300 MB as a rule.
pub const PIXELS_UNDER_WAY_MAX: u64 = 2 * image::PIXELS_MAX;

/// How long one file may take, in seconds, once it is its turn. A photograph of 12 megapixels takes a fifth of a second,
/// 50 megapixels of noise as WebP ten, and a JPEG of the hundred scans that its decoder allows seven; a machine that is
/// busy with other things may need twice that.
pub const HASH_SECONDS_MAX: u64 = 30;

/// Why the pool gives no hashes of a file. The caller knows the file's name and puts it in front.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Too much is waiting. Nothing was looked at; the same file can be sent again.
    #[error(
        "busy: {WAITING_MAX} files or {BYTES_HELD_MAX} bytes of files are waiting to be hashed; try again in a second"
    )]
    Busy,
    /// Longer than [`FILE_BYTES_MAX`].
    #[error(
        "file is {length} bytes long, above the limit of {FILE_BYTES_MAX}; hash it where it is and send the hashes"
    )]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// It begins like an image and is none that we can use.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Not done after [`HASH_SECONDS_MAX`]. Its worker is free again when the decoder ends.
    #[error("file took longer than {HASH_SECONDS_MAX} seconds to hash; scale the picture down first")]
    TooSlow,
    /// A worker panicked outside a decoder.
    #[error("hashing panicked; please report it together with the file's digest")]
    Panicked,
}

/// Workers that hash files in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct Pool {
    /// One permit a file, waiting or under way.
    places: Arc<Semaphore>,
    places_max: usize,
    /// One permit a byte of these files.
    bytes: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    /// One permit a pixel that is being decoded.
    pixels: Arc<Semaphore>,
}

impl Pool {
    /// A pool of `workers` threads, at least one. They are threads of tokio's blocking pool and cost nothing while
    /// there is nothing to do.
    pub fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            places: Arc::new(Semaphore::new(workers + WAITING_MAX)),
            places_max: workers + WAITING_MAX,
            bytes: Arc::new(Semaphore::new(permits(BYTES_HELD_MAX))),
            workers: Arc::new(Semaphore::new(workers)),
            pixels: Arc::new(Semaphore::new(permits(PIXELS_UNDER_WAY_MAX))),
        }
    }

    /// One worker a core.
    pub fn of_all_cores() -> Self {
        Self::new(thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// The hashes of the file `bytes`. Waits for its turn.
    ///
    /// # Errors
    /// [`PoolError`]: at once if too much waits already or the file is too long, else what came of it.
    pub async fn hash(&self, bytes: Bytes) -> Result<FileHashes, PoolError> {
        self.run(bytes, hash_bytes, Duration::from_secs(HASH_SECONDS_MAX)).await
    }

    /// The same, and of a picture its hashes in all eight positions.
    ///
    /// # Errors
    /// As [`Pool::hash`].
    pub async fn hash_positions(&self, bytes: Bytes) -> Result<(FileHashes, Option<[Pdq; 8]>), PoolError> {
        self.run(bytes, hash_positions, Duration::from_secs(HASH_SECONDS_MAX)).await
    }

    /// Files that wait or are being hashed.
    pub fn under_way(&self) -> usize {
        self.places_max - self.places.available_permits()
    }

    /// Does `work` to `bytes` within all limits.
    async fn run<T: Send + 'static>(
        &self,
        bytes: Bytes,
        work: impl FnOnce(&[u8]) -> Result<T, ImageError> + Send + 'static,
        time_max: Duration,
    ) -> Result<T, PoolError> {
        let length = bytes.len() as u64;
        if length > FILE_BYTES_MAX {
            return Err(PoolError::TooLong { length });
        }
        let place = (at_once(&self.places, 1)?, at_once(&self.bytes, length)?);
        let worker = in_turn(&self.workers, 1).await?;
        let measured = bytes.clone();
        let (pixels, place, worker) =
            finished(task::spawn_blocking(move || (pixels_in(&measured), place, worker))).await?;
        let room = in_turn(&self.pixels, pixels?).await?;
        let working = task::spawn_blocking(move || {
            let result = work(&bytes);
            drop((bytes, room, worker, place));
            result
        });
        Ok(time::timeout(time_max, finished(working)).await.map_err(|_elapsed| PoolError::TooSlow)???)
    }
}

/// How many pixels the file will have us decode; none if it is no image.
fn pixels_in(bytes: &[u8]) -> Result<u64, ImageError> {
    match image::sniff(&bytes[..bytes.len().min(image::SNIFF_BYTES)]) {
        Some(format) => image::claimed_pixels(format, bytes),
        None => Ok(0),
    }
}

fn at_once(semaphore: &Arc<Semaphore>, count: u64) -> Result<OwnedSemaphorePermit, PoolError> {
    // Closed it never is, so that the only reason is that nothing is left.
    Arc::clone(semaphore).try_acquire_many_owned(narrow(count)).map_err(|_none_left| PoolError::Busy)
}

async fn in_turn(semaphore: &Arc<Semaphore>, count: u64) -> Result<OwnedSemaphorePermit, PoolError> {
    Arc::clone(semaphore).acquire_many_owned(narrow(count)).await.map_err(|_closed| PoolError::Busy)
}

async fn finished<T>(task: JoinHandle<T>) -> Result<T, PoolError> {
    task.await.map_err(|_panicked| PoolError::Panicked)
}

/// File lengths and pixel counts are bounded far below 32 bits before they come here.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn permits(count: u64) -> usize {
    usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Sender};

    use tokio::task::JoinSet;

    use super::*;
    use crate::hashing::drawn;

    fn png(seed: u32, width: u32, height: u32) -> Bytes {
        drawn::png_bytes(&drawn::poster(seed, width, height)).unwrap().into()
    }

    /// Tasks that hold what they were given until their sender is dropped.
    fn held(pool: &Pool, bytes: &Bytes, count: usize) -> (Sender<()>, JoinSet<Result<(), PoolError>>) {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut tasks = JoinSet::new();
        for _task in 0..count {
            let (pool, bytes, gate) = (pool.clone(), bytes.clone(), Arc::clone(&gate));
            tasks.spawn(async move {
                let wait = move |_bytes: &[u8]| {
                    let _closed = gate.lock().unwrap().recv();
                    Ok(())
                };
                pool.run(bytes, wait, Duration::from_secs(HASH_SECONDS_MAX)).await
            });
        }
        (release, tasks)
    }

    async fn all_done(release: Sender<()>, tasks: JoinSet<Result<(), PoolError>>) {
        drop(release);
        assert!(tasks.join_all().await.iter().all(Result::is_ok));
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let patience = time::timeout(Duration::from_secs(30), async {
            while !condition() {
                task::yield_now().await;
            }
        });
        assert!(patience.await.is_ok(), "never: {what}");
    }

    #[tokio::test]
    async fn a_pool_gives_what_hashing_gives() {
        let pool = Pool::of_all_cores();
        for bytes in [png(3, 70, 50), Bytes::from_static(b"no image"), Bytes::new()] {
            assert_eq!(pool.hash(bytes.clone()).await.unwrap(), hash_bytes(&bytes).unwrap());
        }
        let broken = png(3, 70, 50).slice(..200);
        assert!(matches!(pool.hash(broken).await, Err(PoolError::Image(ImageError::Damaged { .. }))));
    }

    #[tokio::test]
    async fn who_comes_after_a_full_queue_is_told_at_once() {
        let pool = Pool::new(2);
        let (release, tasks) = held(&pool, &Bytes::from_static(b"text"), 2 + WAITING_MAX);
        until("every place is taken", || pool.places.available_permits() == 0).await;
        assert_eq!(pool.under_way(), 2 + WAITING_MAX);
        assert!(matches!(pool.hash(Bytes::from_static(b"one more")).await, Err(PoolError::Busy)));
        all_done(release, tasks).await;
        pool.hash(Bytes::from_static(b"one more")).await.unwrap();
    }

    #[tokio::test]
    async fn the_bytes_of_all_files_that_wait_are_bounded() {
        let pool = Pool::new(1);
        let long = Bytes::from(vec![b't'; permits(FILE_BYTES_MAX)]);
        let (release, tasks) = held(&pool, &long, 8);
        until("every byte is taken", || pool.bytes.available_permits() == 0).await;
        assert!(matches!(pool.hash(Bytes::from_static(b"t")).await, Err(PoolError::Busy)));
        all_done(release, tasks).await;
        let longer = Bytes::from(vec![b't'; permits(FILE_BYTES_MAX) + 1]);
        assert!(matches!(pool.hash(longer).await, Err(PoolError::TooLong { length }) if length == FILE_BYTES_MAX + 1));
    }

    #[tokio::test]
    async fn pixels_under_way_are_bounded_and_a_picture_waits_for_room() {
        let pool = Pool::new(8);
        let all = in_turn(&pool.pixels, PIXELS_UNDER_WAY_MAX - 70 * 50).await.unwrap();
        let (release, tasks) = held(&pool, &png(3, 70, 50), 2);
        until("one has all the room and both have a worker", || {
            pool.pixels.available_permits() == 0 && pool.workers.available_permits() == 6
        })
        .await;
        all_done(release, tasks).await;
        drop(all);
        assert_eq!(pool.pixels.available_permits() as u64, PIXELS_UNDER_WAY_MAX);
    }

    #[tokio::test]
    async fn a_slow_file_is_an_error_and_keeps_its_worker_until_it_ends() {
        let pool = Pool::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let wait = move |_bytes: &[u8]| {
            let _closed = gate.recv();
            Ok(())
        };
        let slow = pool.run(Bytes::from_static(b"t"), wait, Duration::from_millis(1)).await;
        assert!(matches!(slow, Err(PoolError::TooSlow)));
        assert_eq!(pool.workers.available_permits(), 0);
        drop(release);
        until("the worker is free", || pool.workers.available_permits() == 1).await;
        pool.hash(Bytes::from_static(b"t")).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_takes_no_worker_with_it() {
        let pool = Pool::new(1);
        let panicked = pool.run::<()>(Bytes::new(), |_bytes| panic!("a bug"), Duration::from_secs(1)).await;
        assert!(matches!(panicked, Err(PoolError::Panicked)));
        pool.hash(Bytes::new()).await.unwrap();
    }
}
