//! `demo`: the story that the program tells of itself.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::world::{Ran, Reaped, program, wait_for};

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Ran::of(program().args(["demo", "--once"]).env("TMPDIR", folder.path()), b"").ends_with(0);
    for expected in [
        "REVIEW, distance ",
        "BLOCK, distance ",
        "listed a parody: BLOCK; dove, a certifier, allowed it: REVIEW",
        "referred something: REVIEW",
        "its urgent entry matched at bolt and cyan before the rest",
        "cyan disputed it as news: REVIEW, and it waits in acme's queue",
        "the transparency report: ",
        "withdrew",
        "SIGKILL",
        "nothing acknowledged was lost",
        "verifies",
    ] {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_stays_up_can_be_tried_and_ends_at_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let mut command = program();
    command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(&told).unwrap());
    let mut demo = Reaped(command.spawn().unwrap());
    let text = wait_for("the demo says what to try", || {
        assert_eq!(demo.0.try_wait().unwrap(), None, "{}", fs::read_to_string(&told).unwrap());
        Some(fs::read_to_string(&told).unwrap()).filter(|text| text.contains("Ctrl-C stops"))
    });
    let lines: Vec<Vec<_>> =
        text.lines().filter(|line| line.contains(" --demo ")).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, expected) in lines.iter().zip(["BLOCK", "", "ACTIVE", "disputed-own"]) {
        let ran = Ran::of(program().args(&line[1..]).env("TMPDIR", folder.path()), b"").ends_with(0);
        assert!(ran.out.contains(expected), "{line:?}: {ran:?}");
    }
    // A second demo does not disturb the first.
    let second = Ran::of(program().arg("demo").env("TMPDIR", folder.path()), b"").ends_with(73);
    assert!(second.err.contains("a demo is running already"), "{second:?}");

    assert!(cfg!(not(target_os = "linux")) || processes_in(folder.path()) == 5);
    demo.signal("INT");
    assert_eq!(demo.end().0, Some(0), "{}", fs::read_to_string(&told).unwrap());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["told"]);
    assert_eq!(processes_in(folder.path()), 0);
    let ran = Ran::of(program().args(&lines[2][1..]).env("TMPDIR", folder.path()), b"").ends_with(5);
    assert!(ran.err.contains("no demo is running"), "{ran:?}");
}

/// Processes that were started with a path in `folder`, where the system tells.
fn processes_in(folder: &Path) -> usize {
    let Ok(all) = fs::read_dir("/proc") else { return 0 };
    let lines = all.filter_map(|process| fs::read(process.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(folder.to_str().unwrap())).count()
}
