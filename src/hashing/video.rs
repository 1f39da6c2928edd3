//! Video file -> frames, through the `ffmpeg` program as a child process: no decoder for video is part of this program.
//!
//! The file is a stranger's, and decoders have bugs. So the child reads one file of a container that carries its own
//! pictures (a playlist could name other files, or addresses), writes pixels into a pipe and nothing else, has a time, a
//! memory and an output that end, yields to everything else on the machine, and sees none of our environment.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

use super::pdq::pdq;
use crate::clock;
use crate::replica::vpdq::FRAMES_MIN;
pub use crate::replica::vpdq::Frame;

/// Side of the square that a frame is scaled to: PDQ takes a picture of this size as it is.
const SIDE: u32 = 64;
/// Bytes of one frame in the pipe: red, green and blue.
pub const FRAME_BYTES: usize = (SIDE * SIDE * 3) as usize;
/// Time between two frames.
const FRAME_MS: u32 = 1_000;
/// Most frames of one file: four hours, the longest film. What comes later in a video is not looked at. With
/// [`FRAME_BYTES`] it bounds what is read from the pipe, and with the size of a record how many records one file becomes.
pub const FRAMES_MAX: usize = 4 * 3_600;
/// Longest time that a child may take: four hours of a usual recording, on a machine that has other things to do.
pub const TIME_MAX: Duration = Duration::from_secs(1_800);
/// Most memory that a child may ask for, in bytes: the largest pictures that cameras record, in a few threads.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Largest single piece of memory that ffmpeg may ask for, in bytes.
const ALLOC_BYTES_MAX: &str = "536870912";
/// Threads of the child.
const THREADS: u64 = 2;
/// How far the child stands back behind everything else on the machine: 0 to 19.
const NICENESS: i32 = 10;
/// How long a child that has closed its pipe may take to end.
const END_GRACE: Duration = Duration::from_secs(10);
/// Pause between two looks at whether it has ended.
const END_POLL: Duration = Duration::from_millis(5);
/// What is kept of what the child says about itself, in bytes.
const WORDS_BYTES_MAX: usize = 4_096;
/// What of it an error repeats, in characters.
const REASON_CHARS_MAX: usize = 160;
/// The containers that are read, by ffmpeg's names: all carry their pictures themselves.
const CONTAINERS: &str = "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,yuv4mpegpipe";
/// How many bytes of a file [`is_video`] wants to see: two packets of a transport stream.
pub(super) const SNIFF_BYTES: usize = PACKET_BYTES + 1;
/// Length of a packet of a transport stream, whose only mark is a byte at the beginning of each.
const PACKET_BYTES: usize = 188;

/// Why there are no frames of a video. The file's digests can be listed and looked up all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VideoError {
    /// There is no `ffmpeg` in the search path.
    #[error(
        "the program ffmpeg is not here; install it (Debian: apt-get install ffmpeg) to compare videos by their frames"
    )]
    NoProgram,
    /// It could not be started or listened to.
    #[error("cannot run ffmpeg: {0}")]
    Run(String),
    /// It took longer than [`TIME_MAX`], and was ended.
    #[error("ffmpeg took longer than {} s and was ended; cut the video", TIME_MAX.as_secs())]
    TooSlow,
    /// It gave up, or its output ended amid a frame.
    #[error("ffmpeg finds no picture to read: {0}")]
    Unreadable(String),
    /// Less than [`FRAMES_MIN`] frames say enough to be compared.
    #[error("{usable} of {frames} frames have enough in them to be compared, expected {FRAMES_MIN}")]
    TooFew {
        /// Frames of quality 50 and above.
        usable: usize,
        /// All frames.
        frames: usize,
    },
}

/// Whether a file begins like a container of those that we open and holds a video. Sound in one of them is found out later.
pub fn is_video(head: &[u8]) -> bool {
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => !is_still_or_sound(brand),
        [_, _, _, _, b'm', b'o', b'o', b'v', ..] | [_, _, _, _, b'm', b'd', b'a', b't', ..] => true,
        [0, _, _, _, name @ ..] if is_box_before_a_film(name) => true,
        [0x1a, 0x45, 0xdf, 0xa3, ..] => true, // Matroska, WebM
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => true,
        [b'F', b'L', b'V', 1, ..] => true,
        [0, 0, 1, 0xba | 0xb3, ..] => true, // MPEG-1 and MPEG-2
        [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, ..] => true, // ASF, WMV
        [b'O', b'g', b'g', b'S', ..] => head.get(28..35) == Some(b"\x80theora"),
        _ if head.starts_with(b"YUV4MPEG2 ") => true,
        [0x47, ..] => head.get(PACKET_BYTES) == Some(&0x47),
        _ => false,
    }
}

/// What may stand before the first box that says more, in the container of MP4 and `QuickTime`. These are words of texts
/// too ("The free ..."), so the length before them must be a short one.
fn is_box_before_a_film(name: &[u8]) -> bool {
    matches!(name.get(..4), Some(b"wide" | b"free" | b"skip" | b"pnot" | b"styp"))
}

/// The brands of pictures and of sound in the container of MP4.
fn is_still_or_sound(brand: &[u8]) -> bool {
    matches!(
        brand.get(..4),
        Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" | b"avif" | b"avis" | b"crx " | b"M4A " | b"M4B ")
    )
}

/// The frames of the video at `path`, one a second, of all qualities, at most [`FRAMES_MAX`].
///
/// # Errors
/// [`VideoError`]. The child has ended by then.
pub fn frames_of(path: &Path) -> Result<Vec<Frame>, VideoError> {
    let run = |error: io::Error| VideoError::Run(error.to_string());
    let mut command = command(path).map_err(run)?;
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VideoError::NoProgram,
        _ => run(error),
    })?;
    listen(Running(child), TIME_MAX)
}

/// The usable frames of a file: what is listed and looked up of it.
///
/// # Errors
/// [`VideoError`]; also where too little is left to be compared.
pub fn usable_frames_of(path: &Path) -> Result<Vec<Frame>, VideoError> {
    usable(&frames_of(path)?)
}

fn usable(frames: &[Frame]) -> Result<Vec<Frame>, VideoError> {
    let usable: Vec<_> = frames.iter().filter(|frame| frame.is_usable()).copied().collect();
    let enough = usable.len() >= FRAMES_MIN;
    if enough { Ok(usable) } else { Err(VideoError::TooFew { usable: usable.len(), frames: frames.len() }) }
}

/// The frames that are listed of a video: the first of each hash, so that a slide that stands for an hour is one frame. The
/// share that a lookup finds is the same.
pub fn listed(frames: &[Frame]) -> Vec<Frame> {
    let mut seen = std::collections::BTreeSet::new();
    frames.iter().filter(|frame| seen.insert(frame.hash)).copied().collect()
}

/// At most `frames_max` of `frames`, taken at even distances.
pub fn thinned(frames: &[Frame], frames_max: usize) -> Vec<Frame> {
    let taken = frames.len().min(frames_max);
    (0..taken).map(|n| frames[n * frames.len() / taken]).collect()
}

/// What the `ffmpeg` of the search path calls itself; none if there is none.
pub fn program_version() -> Option<String> {
    let told = Command::new("ffmpeg").arg("-version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let first = String::from_utf8_lossy(&told.stdout).lines().next().unwrap_or_default().to_owned();
    Some(first.split(" Copyright").next().unwrap_or_default().to_owned())
}

/// What is run: no shell, no input but the file, no output but the pipes.
fn command(path: &Path) -> io::Result<Command> {
    // A name of its own kind: one that begins with a hyphen is no option, and one with a colon no protocol.
    let mut input = OsString::from("file:");
    input.push(std::path::absolute(path)?);
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-max_alloc", ALLOC_BYTES_MAX, "-threads"])
        .arg(THREADS.to_string())
        .args(["-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS, "-i"])
        .arg(input)
        // The first stream of pictures that is no cover of a piece of music; no sound, no subtitles.
        .args(["-map", "0:V:0", "-an", "-sn", "-dn", "-vf"])
        .arg(format!("fps=1000/{FRAME_MS},scale={SIDE}:{SIDE}:flags=area,format=rgb24"))
        .args(["-frames:v", &FRAMES_MAX.to_string(), "-f", "rawvideo", "pipe:1"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// A child that does not outlive whoever waits for it, nor do its own children.
struct Running(Child);

impl Running {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.0.id()).ok()?)
    }

    /// Least of all work on this machine, in bounded memory. Where the system refuses, the time limit is left.
    fn restrain(&self) {
        let pid = self.pid();
        setpriority_process(pid, NICENESS).ok();
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Resource, Rlimit, prlimit};
            let memory = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
            prlimit(pid, Resource::As, memory).ok();
            // It writes into pipes only.
            prlimit(pid, Resource::Fsize, Rlimit { current: Some(0), maximum: Some(0) }).ok();
            // If we are killed, nobody is left to end it, and it is in a group of its own: so the system does. All of its
            // threads together use no more in the time that we would have waited.
            let seconds = Some(TIME_MAX.as_secs() * THREADS);
            prlimit(pid, Resource::Cpu, Rlimit { current: seconds, maximum: seconds }).ok();
        }
    }

    fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            kill_process_group(pid, Signal::KILL).ok();
        }
        drop(self.0.kill());
    }

    /// Its end, by itself or not.
    fn end(&mut self, deadline: Instant) -> Result<ExitStatus, VideoError> {
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if clock::instant() < deadline => thread::sleep(END_POLL),
                Ok(None) => return Err(VideoError::TooSlow),
                Err(error) => return Err(VideoError::Run(error.to_string())),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only while it is not reaped: else its number may be another's by now.
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            self.kill();
            drop(self.0.wait());
        }
    }
}

/// Reads what a child writes until it ends, for `time_max` at most.
fn listen(mut child: Running, time_max: Duration) -> Result<Vec<Frame>, VideoError> {
    let deadline = clock::instant() + time_max;
    child.restrain();
    let silent = || VideoError::Run("it has no output".to_owned());
    let words = child.0.stderr.take().ok_or_else(silent)?;
    let words = in_a_thread(move || words_of(words));
    let pixels = child.0.stdout.take().ok_or_else(silent)?;
    let read = in_a_thread(move || read_frames(pixels, FRAMES_MAX));
    let frames = match read.recv_timeout(time_max) {
        Ok(frames) => frames,
        // Killed with the value: the threads that read see the end of their pipes then.
        Err(RecvTimeoutError::Timeout) => return Err(VideoError::TooSlow),
        Err(RecvTimeoutError::Disconnected) => return Err(VideoError::Run("reading it failed".to_owned())),
    };
    let status = child.end(deadline.min(clock::instant() + END_GRACE))?;
    // Who else holds that pipe does not hold us up.
    let words = words.recv_timeout(END_GRACE).unwrap_or_default();
    match frames {
        Ok(frames) if status.success() && !frames.is_empty() => Ok(frames),
        Ok(_) => Err(VideoError::Unreadable(reason(&words))),
        Err(ReadError::Half(bytes)) => {
            Err(VideoError::Unreadable(format!("its output ended {bytes} bytes into a frame of {FRAME_BYTES}")))
        }
        Err(ReadError::Io(error)) => Err(VideoError::Run(error)),
    }
}

/// What `work` gives, once it is done; the thread ends with its pipe.
fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, result) = mpsc::sync_channel(1);
    drop(thread::spawn(move || drop(done.send(work()))));
    result
}

/// What the child says about itself, from its beginning; all of it is read, so that it never waits for us.
fn words_of(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    drop(from.by_ref().take(WORDS_BYTES_MAX as u64).read_to_end(&mut kept));
    drop(io::copy(&mut from, &mut io::sink()));
    String::from_utf8_lossy(&kept).into_owned()
}

/// The last thing that was said, in one line without control characters.
fn reason(words: &str) -> String {
    let last = words.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it gives no reason");
    last.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

/// Why the pipe gave no frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It ended so many bytes into a frame.
    Half(usize),
    /// It cannot be read.
    Io(String),
}

/// The frames in a stream of pixels, [`FRAME_BYTES`] each, up to `frames_max`; what follows is left unread.
///
/// # Errors
/// [`ReadError`]; no frame is given then.
pub fn read_frames(mut pixels: impl Read, frames_max: usize) -> Result<Vec<Frame>, ReadError> {
    let mut frames = Vec::new();
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    while frames.len() < frames_max {
        frame.clear();
        let read = pixels.by_ref().take(FRAME_BYTES as u64).read_to_end(&mut frame);
        match read.map_err(|error| ReadError::Io(error.to_string()))? {
            0 => break,
            FRAME_BYTES => {}
            half => return Err(ReadError::Half(half)),
        }
        let hashed = pdq(SIDE, SIDE, &frame);
        let time_ms = u32::try_from(frames.len()).unwrap_or(u32::MAX).saturating_mul(FRAME_MS);
        frames.push(Frame { hash: hashed.hash, quality: hashed.quality, time_ms });
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;

    use super::*;
    use crate::hashing::drawn;
    use crate::replica::signal::distance;

    /// Whether there is an ffmpeg to test with; CI must have one.
    fn has_ffmpeg() -> bool {
        let is_here =
            Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        assert!(is_here || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "ffmpeg is missing in CI");
        if !is_here {
            println!("skipped: ffmpeg is missing (Debian: apt-get install ffmpeg)");
        }
        is_here
    }

    fn film(folder: &Path, name: impl AsRef<OsStr>, seconds: u32) -> std::path::PathBuf {
        let path = folder.join(name.as_ref());
        fs::write(&path, drawn::y4m_bytes(&drawn::film(7, seconds, 160, 90))).unwrap();
        path
    }

    #[test]
    fn a_video_has_a_frame_a_second_that_a_copy_has_too() {
        if !has_ffmpeg() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = film(folder.path(), "film.y4m", 12);
        let frames = frames_of(&path).unwrap();
        let times: Vec<_> = frames.iter().map(|frame| frame.time_ms).collect();
        assert_eq!(times, (0..12).map(|second| second * 1_000).collect::<Vec<_>>());
        assert!(frames.iter().all(Frame::is_usable), "{frames:?}");
        assert_eq!(usable_frames_of(&path).unwrap(), frames);
        let copy = folder.path().join("copy.mp4");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-loglevel", "error", "-i"]).arg(&path);
        ffmpeg.args(["-vf", "scale=214:120", "-r", "25", "-c:v", "mpeg4", "-q:v", "8"]).arg(&copy);
        assert!(ffmpeg.status().unwrap().success());
        let copied = frames_of(&copy).unwrap();
        let near = |frame: &&Frame| frames.iter().any(|f| distance(&f.hash, &frame.hash) <= 31);
        assert!(copied.len() >= 11 && copied.iter().filter(near).count() == copied.len(), "{copied:?}");
    }

    #[test]
    fn a_name_is_a_name_whatever_is_in_it() {
        if !has_ffmpeg() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let strange = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff not UTF-8.avi");
        for name in ["-version", "http:x", "a|b", "%03d.y4m", "pipe:0", "two words\n", "$(id)"]
            .map(OsStr::new)
            .into_iter()
            .chain([strange])
        {
            let path = film(folder.path(), name, 3);
            assert_eq!(frames_of(&path).map(|frames| frames.len()), Ok(3), "{name:?}");
        }
    }

    #[test]
    fn what_names_other_files_or_is_no_video_has_no_frames() {
        if !has_ffmpeg() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = film(folder.path(), "film.y4m", 3);
        let whole = fs::read(&path).unwrap();
        for (name, text) in [
            (
                "list.m3u8",
                format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n", path.display())
                    .into_bytes(),
            ),
            ("list.ffconcat", b"ffconcat version 1.0\nfile film.y4m\n".to_vec()),
            ("picture.png", drawn::png_bytes(&drawn::poster(1, 64, 64)).unwrap()),
            ("text.mp4", b"\0\0\0\x18ftypisom and then nothing that anybody could read".to_vec()),
            ("empty.mp4", Vec::new()),
            ("header.y4m", whole[..60].to_vec()),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let refused = frames_of(&path).unwrap_err();
            assert!(matches!(&refused, VideoError::Unreadable(_)), "{name}: {refused}");
            assert!(refused.to_string().len() < 250, "{refused}");
        }
        assert!(frames_of(&folder.path().join("none.mp4")).is_err());
    }

    #[test]
    fn a_video_of_which_too_little_is_left_is_told() {
        if !has_ffmpeg() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dark.y4m");
        let mut pictures = vec![image::RgbImage::new(160, 90); 8];
        pictures.extend(drawn::film(1, 2, 160, 90));
        fs::write(&path, drawn::y4m_bytes(&pictures)).unwrap();
        assert_eq!(usable_frames_of(&path), Err(VideoError::TooFew { usable: 2, frames: 10 }));
        let told = VideoError::TooFew { usable: 2, frames: 10 }.to_string();
        assert_eq!(told, "2 of 10 frames have enough in them to be compared, expected 3");
    }

    fn child(program: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(program);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    #[test]
    fn a_child_that_does_not_end_is_ended_with_its_children() {
        // The second sleeps in the background and holds the pipe: if it lived on, reading would not end.
        for (program, arguments) in [("sleep", &["600"][..]), ("sh", &["-c", "sleep 600 & echo $!; wait"])] {
            let child = child(program, arguments);
            let pid = child.pid().unwrap();
            assert_eq!(listen(child, Duration::from_millis(300)), Err(VideoError::TooSlow), "{program}");
            assert!(rustix::process::test_kill_process(pid).is_err(), "{program} is still there");
        }
        let mut child = child("sh", &["-c", "sleep 600 & wait"]);
        let mut pipe = child.0.stdout.take().unwrap();
        drop(child);
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0, "nobody holds the pipe any more");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_that_we_do_not_survive_is_ended_by_the_system() {
        let child = child("sleep", &["600"]);
        child.restrain();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.0.id())).unwrap();
        let cpu = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
        assert_eq!(cpu.split_whitespace().collect::<Vec<_>>()[3..], ["3600", "3600", "seconds"]);
    }

    #[test]
    fn a_child_that_fails_or_says_nothing_gives_no_frames() {
        for (script, told) in [
            ("echo first >&2; printf 'why\\033[1m\\n' >&2; exit 1", "finds no picture to read: why[1m"),
            ("exit 0", "it gives no reason"),
            ("head -c 12289 /dev/zero", "1 bytes into a frame of 12288"),
            ("head -c 12288 /dev/zero; exit 1", "it gives no reason"),
            ("head -c 1000000 /dev/zero | tr '\\0' y >&2; exit 3", &format!(" read: {}", "y".repeat(160))),
        ] {
            let refused = listen(child("sh", &["-c", script]), TIME_MAX).unwrap_err().to_string();
            assert!(refused.ends_with(told), "{script}: {refused}");
        }
        assert_eq!(listen(child("sh", &["-c", "head -c 24576 /dev/zero"]), TIME_MAX).unwrap().len(), 2);
    }

    #[test]
    fn no_more_is_read_than_the_frames_that_may_be() {
        let mut endless = io::repeat(7);
        assert_eq!(read_frames(&mut endless, 3).unwrap().len(), 3);
        assert_eq!(read_frames(&[1; FRAME_BYTES + 5][..], 9), Err(ReadError::Half(5)));
        assert_eq!(read_frames(&[][..], 9), Ok(Vec::new()));
    }

    #[test]
    fn containers_of_videos_are_told_from_pictures_sound_and_text() {
        let mp4 = |brand: &[u8]| [&b"\0\0\0\x18ftyp"[..], brand, b"\0\0\x02\0"].concat();
        let ogg = |codec: &[u8]| [&b"OggS"[..], &[0; 24], codec].concat();
        let mut packets = vec![0x47; 1];
        packets.resize(PACKET_BYTES, 0);
        let stream = [&packets[..], b"G"].concat();
        for (head, expected) in [
            (mp4(b"isom"), true),
            (mp4(b"qt  "), true),
            (mp4(b"heic"), false),
            (mp4(b"avif"), false),
            (mp4(b"M4A "), false),
            (b"\x1a\x45\xdf\xa3\x9f".to_vec(), true),
            (b"RIFF\0\0\0\0AVI LIST".to_vec(), true),
            (b"RIFF\0\0\0\0WEBPVP8 ".to_vec(), false),
            (b"RIFF\0\0\0\0WAVEfmt ".to_vec(), false),
            (ogg(b"\x80theora"), true),
            (ogg(b"\x01vorbis"), false),
            (b"YUV4MPEG2 W1 H1".to_vec(), true),
            (stream.clone(), true),
            (stream[..PACKET_BYTES].to_vec(), false),
            (b"\0\0\0\x08wide\0\0\0\0mdat".to_vec(), true),
            (b"\0\0\x01\0free".to_vec(), true),
            (b"\0\0\0\x10skip".to_vec(), true),
            (b"\0\0\0\x14pnot".to_vec(), true),
            (mp4(b"msdh").iter().map(|&b| if b == b'f' { b's' } else { b }).collect(), true),
            (b"The free press".to_vec(), false),
            (b"Good morning".to_vec(), false),
            (b"#EXTM3U".to_vec(), false),
            (b"\x89PNG\r\n\x1a\n".to_vec(), false),
            (Vec::new(), false),
        ] {
            assert_eq!(is_video(&head), expected, "{:?}", String::from_utf8_lossy(&head));
        }
    }

    #[test]
    fn a_hash_is_listed_once_and_a_long_video_is_looked_up_by_some_of_its_frames() {
        let frame = |n: u32| Frame { hash: [(n % 150) as u8; 32], quality: 90, time_ms: n * 1_000 };
        let frames: Vec<_> = (0..400).map(frame).collect();
        assert_eq!(listed(&frames), frames[..150]);
        assert_eq!(thinned(&frames, 400), frames);
        assert_eq!(thinned(&frames, 3), [frames[0], frames[133], frames[266]]);
        assert_eq!((thinned(&frames, 0), thinned(&[], 3)), (Vec::new(), Vec::new()));
    }
}
