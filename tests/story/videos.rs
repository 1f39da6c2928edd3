//! Videos with real nodes: a drawn film that one company lists, and another finds in a copy; level by level, with and
//! without the program that reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use staydown::hashing::drawn;

use crate::drills::{cause, enact, version_is};
use crate::world::{Company, Forum, Ran, program, wait_for};

/// Whether there is an ffmpeg; CI must have one.
#[expect(clippy::print_stdout, reason = "says what was skipped")]
fn has_ffmpeg() -> bool {
    let is_here = Command::new("ffmpeg").arg("-version").output().is_ok();
    assert!(is_here || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "ffmpeg is missing in CI");
    if !is_here {
        println!("skipped: ffmpeg is missing (Debian: apt-get install ffmpeg)");
    }
    is_here
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn film(folder: &Path, seed: u32, seconds: u32) -> String {
    write(folder, &format!("film-{seed}.y4m"), &drawn::y4m_bytes(&drawn::film(seed, seconds, 160, 90)))
}

/// The film as a messenger would send it: another size, another rate, another codec.
fn copy_of(film: &str, name: &str, filter: &str) -> String {
    let copy = Path::new(film).with_file_name(name);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-i", film, "-vf", filter, "-r", "25", "-c:v", "mpeg4", "-q:v", "9"]);
    assert!(ffmpeg.arg(&copy).status().unwrap().success());
    copy.to_str().unwrap().to_owned()
}

fn asked(at: &Company, arguments: &[&str]) -> Value {
    let ran = at.run(&[&["match"], arguments, &["--json"]].concat());
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    ran.json()
}

/// The shares of the videos that match.
fn shares(answer: &Value) -> Vec<u64> {
    answer["matches"].as_array().unwrap().iter().filter_map(|found| found["share_permille"].as_u64()).collect()
}

#[track_caller]
fn found(at: &Company, arguments: &[&str]) -> Value {
    wait_for(&format!("{arguments:?} matches at {}", at.name), || {
        let answer = asked(at, arguments);
        (!shares(&answer).is_empty()).then_some(answer)
    })
}

fn refused(ran: &Ran) -> (String, String) {
    (cause(ran), ran.json()["error"]["fix"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_video_is_listed_by_its_frames_and_found_in_a_copy() {
    if !has_ffmpeg() {
        return;
    }
    let mut forum = Forum::found(2);
    forum.join();
    let folder = forum.folder.path().to_owned();
    let (film, other) = (film(&folder, 1, 130), film(&folder, 2, 20));
    let copy = copy_of(&film, "copy.mp4", "scale=214:120");
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };

    // Below its level nothing of the file is listed.
    enact(&forum, 0, 2, &["set-semantics", "3"]);
    let submit = ["submit", &film, "--label", "propaganda", "--json"];
    let (why, fix) = refused(&acme.run(&submit).ends_with(4));
    assert!(why.contains("level 3") && why.contains("level 4") && fix.contains("set-semantics 4"), "{why}: {fix}");
    assert!(asked(acme, &[&film])["matches"].as_array().unwrap().is_empty());

    enact(&forum, 0, 3, &["set-semantics", "4"]);
    forum.companies.iter().for_each(|company| version_is(company, 3));
    let receipts = acme.does(&submit).json()["receipts"].as_array().unwrap().len();
    assert_eq!(receipts, 2 + 4, "130 frames are two records, and there are four digests");

    // The copy has no digest in common, and its frames are near. Of both records one answers for the video.
    let answer = found(bolt, &[&copy]);
    let share = shares(&answer);
    assert!(answer["matches"].as_array().unwrap().len() == 1 && share[0] >= 950, "{share:?}");
    assert_eq!(answer["matches"][0]["entry"]["signal"]["type"], "vpdq");
    assert_ne!(answer["verdict"], "ALLOW");
    let told = bolt.does(&["match", &copy]);
    assert!(told.out.contains("% of the frames  vpdq:") && told.out.contains("\u{2026} ("), "{told:?}");
    assert!(told.out.lines().all(|line| line.chars().count() < 300), "no line is as long as a record: {told:?}");
    // A minute out of the middle is a part of it, across both records.
    let part = copy_of(&film, "part.mp4", "trim=start=70:end=125,setpts=PTS-STARTPTS,scale=128:72");
    assert!(shares(&found(bolt, &[&part]))[0] >= 900);

    // What is no copy does not match, however much of it is asked for.
    for path in [&other, &copy_of(&other, "other.mp4", "scale=214:120")] {
        assert!(shares(&asked(bolt, &[path, "--share", "20"])).is_empty());
    }
    let poster = &drawn::film(1, 5, 160, 90)[4];
    let still = write(&folder, "still.png", &drawn::png_bytes(poster).unwrap());
    assert!(asked(bolt, &[&still])["matches"].as_array().unwrap().is_empty(), "a still is no video");
    acme.does(&["submit", &still, "--label", "propaganda"]);
    let _listed = wait_for("the still is listed", || {
        let answer = asked(bolt, &[&still]);
        (!answer["matches"].as_array().unwrap().is_empty()).then_some(answer)
    });
    let types = |answer: &Value| -> Vec<String> {
        let matches = answer["matches"].as_array().unwrap().iter();
        matches.map(|found| found["entry"]["signal"]["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&asked(bolt, &[&copy])), ["vpdq"], "nor does a video match a still");

    // A part that is hidden in something else is found only where less is asked for.
    let mixed = {
        let mut pictures = drawn::film(1, 12, 160, 90);
        pictures.extend(drawn::film(3, 8, 160, 90));
        write(&folder, "mixed.y4m", &drawn::y4m_bytes(&pictures))
    };
    assert!(shares(&asked(bolt, &[&mixed])).is_empty());
    assert_eq!(shares(&found(bolt, &[&mixed, "--share", "60"])), [600]);

    // People see short names, programs whole ones; what programs are given is taken back.
    let listed = bolt.does(&["list", "search", "--type", "vpdq"]).out;
    assert!(listed.contains("(100 frames)") && listed.contains("(30 frames)"), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() < 300), "{listed}");
    let entries = bolt.does(&["list", "search", "--type", "vpdq", "--json"]).json_lines();
    let value = entries[0]["signal"]["value"].as_str().unwrap();
    assert!(value.len() == 7_400 || value.len() == 2_220, "{}", value.len());
    bolt.does(&["entry", "endorse", &format!("vpdq:{value}")]);
    let csv = bolt.does(&["list", "export", "--type", "vpdq", "--format", "csv"]).out;
    assert!(csv.lines().skip(1).all(|row| row.starts_with("vpdq,") && row.len() > 2_220), "{csv}");
    let table = write(&folder, "rows.csv", csv.as_bytes());
    assert!(bolt.does(&["submit", "--from", &table, "--check"]).code == Some(0));

    // Who listed it takes it back, and it matches no more.
    acme.does(&["entry", "withdraw", &film]);
    bolt.does(&["entry", "withdraw", &format!("vpdq:{value}")]);
    wait_for("the film matches no more", || shares(&asked(bolt, &[&copy])).is_empty().then_some(()));
    forum.agree();
}

#[test]
fn a_file_without_frames_has_its_digests_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = film(folder.path(), 1, 4);
    let nowhere = folder.path().join("empty");
    fs::create_dir(&nowhere).unwrap();
    let ran = Ran::of(program().env("PATH", &nowhere).args(["hash", &path]), b"").ends_with(0);
    assert!(ran.err.contains("only its digests are used: the program ffmpeg is not here; install it"), "{ran:?}");
    let kinds: Vec<_> = ran.out.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["md5", "sha1", "sha256", "sha512"]);
    if !has_ffmpeg() {
        return;
    }
    let dark = write(folder.path(), "dark.y4m", &drawn::y4m_bytes(&vec![drawn::film(1, 1, 160, 90)[0].clone(); 2]));
    let ran = Ran::of(program().args(["hash", &dark]), b"").ends_with(0);
    assert!(ran.err.contains("2 of 2 frames have enough in them") && !ran.out.contains("vpdq"), "{ran:?}");
    let ran = Ran::of(program().args(["hash", &path]), b"").ends_with(0);
    assert!(ran.out.starts_with("vpdq:") && ran.out.contains("\u{2026} (4 frames)"), "{ran:?}");
    let ran = Ran::of(program().args(["hash", "--json", &path]), b"").ends_with(0);
    assert_eq!(ran.json()["hashes"][0]["value"].as_str().unwrap().len(), 4 * 74);
}
