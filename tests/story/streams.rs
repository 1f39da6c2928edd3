//! A program that keeps the list follows the changes, breaks off, goes on from its bookmark, and is told when it must
//! begin anew.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::world::{Company, DEADLINE, Forum, Ran, Reaped, hash, program, run, wait_for};

/// A running `list watch --json`, and the list that its lines make.
struct Watch {
    process: Reaped,
    lines: mpsc::Receiver<String>,
    stderr: thread::JoinHandle<String>,
    list: BTreeMap<String, Value>,
    bookmark: String,
    changes: Vec<(String, String)>,
}

impl Watch {
    fn start(at: &Company, arguments: &[&str], list: BTreeMap<String, Value>) -> Self {
        let mut child = program()
            .arg("--data")
            .arg(&at.data)
            .args(["list", "watch", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        Self { process: Reaped(child), lines, stderr, list, bookmark: String::new(), changes: Vec::new() }
    }

    /// Takes one line.
    #[track_caller]
    fn line(&mut self) -> Value {
        let line = self.lines.recv_timeout(DEADLINE).expect("a line comes");
        let event: Value = serde_json::from_str(&line).unwrap();
        self.bookmark = event["bookmark"].as_str().unwrap().to_owned();
        if let Some(entry) = event.get("entry") {
            let subject = entry["subject_id"].as_str().unwrap().to_owned();
            let status = entry["status"].as_str().unwrap().to_owned();
            self.changes.push((event["change"].as_str().unwrap().to_owned(), status.clone()));
            if status == "INACTIVE" {
                self.list.remove(&subject);
            } else {
                self.list.insert(subject, normal(entry.clone()));
            }
        }
        event
    }

    /// Takes lines up to the next with an entry: in silence there are others.
    #[track_caller]
    fn event(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.get("entry").is_some() {
                return line;
            }
        }
    }

    /// Takes lines until the list is as it should be.
    #[track_caller]
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.changes.len() < 1_000, "never came true: {what}");
            self.line();
        }
    }

    /// Ends it, and returns its list, its bookmark and what it said.
    fn end(mut self, signal: Option<&str>) -> (BTreeMap<String, Value>, String, Ran) {
        if let Some(signal) = signal {
            self.process.signal(signal);
        }
        let (code, _) = self.process.end();
        let out = self.lines.iter().collect::<Vec<_>>().join("\n");
        (self.list, self.bookmark, Ran { code, out, err: self.stderr.join().unwrap() })
    }
}

fn item(n: u64) -> String {
    format!("sha256:{}", hash(n))
}

/// Members' words come in the order in which a node heard them, which a restart changes.
fn normal(mut entry: Value) -> Value {
    entry["said"].as_array_mut().unwrap().sort_by_key(|said| said["member"].to_string());
    entry
}

/// The list as the node shows it, by subject.
fn listed(at: &Company) -> BTreeMap<String, Value> {
    let entries = at.does(&["list", "search", "--limit", "1000", "--json"]).json_lines();
    entries.into_iter().map(|entry| (entry["subject_id"].as_str().unwrap().to_owned(), normal(entry))).collect()
}

#[test]
fn a_copy_of_the_list_is_kept_by_following_its_changes() {
    let mut forum = Forum::found(2);
    forum.join();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };
    for n in 1..=5 {
        acme.does(&["submit", &item(n), "--label", "propaganda"]);
    }
    let mut watch = Watch::start(acme, &["--list"], BTreeMap::new());
    watch.until("the list is complete", |watch| watch.list.len() == 5);
    assert!(watch.line().get("entry").is_none(), "a line without an entry says that it is");
    assert!(watch.changes.iter().all(|(change, status)| change == "STANDS" && status == "ACTIVE"));

    // What others say is told, too, with the record that it comes from.
    wait_for("bolt has it", || (bolt.run(&["entry", "show", &item(5)]).code == Some(0)).then_some(()));
    bolt.does(&["entry", "endorse", &item(1)]);
    let event = watch.event();
    assert_eq!((&event["change"], &event["entry"]["support_groups"]), (&"SAID".into(), &2.into()));
    let said = event["entry"]["said"].as_array().unwrap().iter().find(|said| said["member"] == "bolt").unwrap();
    assert_eq!((&said["what"], &said["seq"]), (&"ENDORSE".into(), &event["records"][0]["seq"]));
    bolt.does(&["submit", &item(6), "--label", "symbol"]);
    let event = watch.event();
    assert_eq!((&event["change"], &event["entry"]["signal"]["value"]), (&"SAID".into(), &hash(6).into()));
    let (list, bookmark, ended) = watch.end(Some("INT"));
    assert!(ended.code == Some(0) && ended.err.contains(&format!("--from {bookmark}")), "{ended:?}");
    assert_eq!(list, listed(acme));

    // While nobody follows: a withdrawal, something new, and a restart of the node.
    acme.does(&["entry", "withdraw", &item(2)]);
    forum.companies[0].stop();
    forum.companies[1].does(&["submit", &item(7), "--label", "symbol"]);
    forum.companies[0].start(&["run"]);
    forum.companies[0].ready(1);
    let acme = &forum.companies[0];
    wait_for("acme has it", || (acme.run(&["entry", "show", &item(7)]).code == Some(0)).then_some(()));
    let mut watch = Watch::start(acme, &["--from", &bookmark], list);
    watch.until("both are told", |watch| watch.changes.len() == 2);
    assert!(watch.line().get("entry").is_none(), "and nothing else");
    assert_eq!(watch.list, listed(acme));
    assert_eq!(watch.list.len(), 6);

    // The node stops: that is no failure.
    forum.companies[0].stop();
    let (list, bookmark, ended) = watch.end(None);
    assert!(ended.code == Some(0) && ended.err.contains(&format!("--from {bookmark}")), "{ended:?}");
    forum.companies[0].start(&["run"]);
    forum.companies[0].ready(1);
    let watch = Watch::start(&forum.companies[0], &["--from", &bookmark], list);
    another_charter_ends_it(&forum, watch, &bookmark);
}

fn another_charter_ends_it(forum: &Forum, mut watch: Watch, bookmark: &str) {
    assert!(watch.line().get("entry").is_none(), "level");
    let (acme, file) = (&forum.companies[0], forum.path("charter-2.sdc"));
    acme.does(&["charter", "renew", "--days", "400", "-o", &file]);
    for name in ["acme", "bolt"] {
        let key = forum.path(&format!("founder-{name}.pem"));
        run(&["charter", "sign", &file, "--key", &key]).ends_with(0);
    }
    acme.does(&["charter", "apply", &file]);
    let (.., ended) = watch.end(None);
    assert!(ended.code == Some(2) && ended.out.contains("(BOOKMARK)"), "{ended:?}");
    let refused = acme.run(&["list", "watch", "--from", bookmark]).ends_with(2);
    assert!(refused.err.contains("charter 2 is in force") && refused.err.contains("list watch --list"), "{refused:?}");
    let refused = acme.run(&["list", "watch", "--from", &bookmark[1..]]).ends_with(2);
    assert!(refused.err.contains("damaged"), "{refused:?}");
    let mut watch = Watch::start(acme, &["--list", "--type", "sha256"], BTreeMap::new());
    watch.until("the list anew", |watch| watch.list.len() == 6);
    assert_eq!(watch.list, listed(acme));
    watch.end(Some("TERM")).2.ends_with(0);
}
