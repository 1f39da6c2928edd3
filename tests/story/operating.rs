//! What an operator does with a node, with the built program: settings, the service manager, reloads, a stop that drains,
//! `doctor`, `check`, manual pages.

use std::convert::Infallible;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use crate::world::{Company, Forum, hash, run, wait_for};

/// Adds lines to a node's settings.
fn set(company: &Company, lines: &str) {
    let path = company.data.join("staydown.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{lines}")).unwrap();
}

/// One company with a forum of its own, which does not run.
fn alone() -> Forum {
    let mut forum = Forum::found(1);
    forum.join();
    forum.companies[0].stop();
    forum
}

#[test]
fn settings_are_shown_with_where_they_come_from_and_refused_all_at_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let company = Company::new(folder.path(), "acme");
    fs::create_dir(&company.data).unwrap();
    fs::write(company.data.join("staydown.toml"), "[log]\nfilter = \"warn\"\n").unwrap();
    let shown = company.does(&["config", "show", "--json"]).json();
    let keys: Vec<_> = shown.as_array().unwrap().iter().map(|setting| setting["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["data", "log.filter"]);
    assert_eq!(shown[0]["source"], "flag --data");
    assert!(shown[1]["source"].as_str().unwrap().ends_with("staydown.toml line 2"), "{shown}");
    let all = company.does(&["config", "show", "--effective"]).out;
    for expected in ["peer.listen", "0.0.0.0:7700", "run.drain_seconds", "web.hosts"] {
        assert!(all.contains(expected), "{all}");
    }
    let example = company.does(&["config", "example"]).out;
    fs::write(company.data.join("staydown.toml"), example).unwrap();
    company.does(&["config", "show"]);

    fs::write(company.data.join("staydown.toml"), "[log]\nfiltre = \"warn\"\nformat = \"xml\"\n[peer]\nlisten = 1\n")
        .unwrap();
    let refused = company.run(&["config", "show", "--json"]).ends_with(78).json();
    let culprits: Vec<_> = refused["error"]["culprits"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(culprits.len(), 3, "{refused}");
    assert!(culprits[0].contains("line 2") && culprits[0].contains("did you mean \\\"log.filter\\\"?"), "{culprits:?}");
    assert!(culprits[2].contains("line 5"), "{culprits:?}");
    let told = company.run(&["doctor", "--json"]).ends_with(1).json();
    assert_eq!(told["findings"].as_array().unwrap().len(), 3, "{told}");
    assert!(company.run(&["check"]).ends_with(3).out.starts_with("UNKNOWN: the settings have 3 mistakes"));
}

/// What the program tells the service manager, one message a line of assignments.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        Self { socket, told: Vec::new() }
    }

    /// Waits until it is told something with this line, and returns the whole.
    #[track_caller]
    fn hears(&mut self, line: &str) -> String {
        let mut bytes = [0; 4096];
        wait_for(&format!("the manager is told {line}, and not only {:?}", self.told), || {
            let length = self.socket.recv(&mut bytes).ok()?;
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.told.push(text.clone());
            text.lines().any(|told| told == line).then_some(text)
        })
    }
}

#[test]
fn the_service_manager_is_told_of_start_reload_life_and_end() {
    let mut forum = alone();
    let path = forum.path("notify.sock");
    let mut manager = Manager::at(Path::new(&path));
    let acme = &mut forum.companies[0];
    acme.start_with(&["run"], &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "800000")]);
    let ready = manager.hears("READY=1");
    assert!(ready.contains("STATUS=the only member so far, 0 entries"), "{ready}");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    acme.signal("HUP");
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    manager.hears("READY=1");
    acme.signal("TERM");
    manager.hears("STOPPING=1");
    assert_eq!(acme.end(), Some(0));
}

#[test]
fn a_reload_takes_up_the_log_filter_and_says_what_needs_a_restart() {
    let mut forum = alone();
    let acme = &mut forum.companies[0];
    acme.start(&["run"]);
    acme.ready(0);
    assert!(!acme.log().contains("DEBUG"));
    set(acme, "[policy]\nshadow = true\n[log]\nfilter = \"debug\"\n");
    acme.signal("HUP");
    wait_for("the filter is taken up", || acme.log().contains("the log filter is in use from now on").then_some(()));
    wait_for("what waits is told", || acme.log().contains("settings=\"policy.shadow\"").then_some(()));
    wait_for("it is in use", || {
        acme.status();
        acme.log().contains("DEBUG").then_some(())
    });
    set(acme, "[log]\n");
    acme.signal("HUP");
    wait_for("a file with a mistake changes nothing", || {
        acme.log().contains("the settings are not read again").then_some(())
    });
    acme.stop();
}

/// A request for the status whose end the test sends when it likes.
struct Slow {
    rest: mpsc::Sender<Bytes>,
    answer: JoinHandle<Option<http::response::Parts>>,
}

/// An empty message, as gRPC frames it.
static EMPTY_MESSAGE: [u8; 5] = [0; 5];

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://local.invalid").connect_with_connector(connector).await.unwrap()
}

async fn ask(mut channel: Channel, body: impl Stream<Item = Bytes> + Send + 'static) -> Option<http::response::Parts> {
    let frames = body.map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
    let request = http::Request::post("http://local.invalid/staydown.local.v1.Forum/Status")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(StreamBody::new(frames)))
        .unwrap();
    let (mut parts, body) = channel.ready().await.ok()?.call(request).await.ok()?.into_parts();
    let trailers = body.collect().await.ok()?.trailers().cloned();
    parts.headers.extend(trailers.unwrap_or_default());
    Some(parts)
}

impl Slow {
    /// Begins one; the node has it when this returns.
    #[expect(clippy::disallowed_methods, reason = "it is awaited, or ends with the test")]
    async fn begin(socket: &Path) -> Self {
        let channel = connect(socket).await;
        let (rest, pieces) = mpsc::channel(1);
        rest.send(Bytes::from_static(&EMPTY_MESSAGE[..2])).await.unwrap();
        let answer = tokio::spawn(ask(channel.clone(), ReceiverStream::new(pieces)));
        // What is asked later on one connection is taken up later.
        while rest.capacity() == 0 {
            tokio::task::yield_now().await;
        }
        let other = ask(channel, tokio_stream::once(Bytes::from_static(&EMPTY_MESSAGE))).await.unwrap();
        assert_eq!(other.headers["grpc-status"], "0");
        Self { rest, answer }
    }

    async fn finish(self) -> Option<http::response::Parts> {
        drop(self.rest.send(Bytes::from_static(&EMPTY_MESSAGE[2..])).await);
        drop(self.rest);
        self.answer.await.unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Whether the node takes a new request.
fn refuses(acme: &Company) -> Option<()> {
    (acme.run(&["status"]).code == Some(5)).then_some(())
}

#[test]
fn a_stop_lets_end_what_is_under_way_and_takes_nothing_new() {
    let mut forum = alone();
    let (acme, runtime) = (&mut forum.companies[0], runtime());
    set(acme, "[run]\ndrain_seconds = 3600\n");
    acme.start(&["run"]);
    acme.ready(0);
    let slow = runtime.block_on(Slow::begin(&acme.data.join("local.sock")));
    acme.signal("TERM");
    wait_for("new requests are refused", || refuses(acme));
    let answer = runtime.block_on(slow.finish()).expect("what was under way is answered");
    assert_eq!(answer.headers["grpc-status"], "0");
    assert_eq!(acme.end(), Some(0));
    assert!(!acme.log().contains("calls still under way"), "{}", acme.log());
}

#[test]
fn a_second_signal_ends_the_node_at_once_and_so_does_the_deadline() {
    let mut forum = alone();
    let (acme, runtime) = (&mut forum.companies[0], runtime());
    for (drain, signals, code) in [(3600, 2, 1), (0, 1, 0)] {
        let settings = fs::read_to_string(acme.data.join("staydown.toml")).unwrap();
        set(acme, &format!("[run]\ndrain_seconds = {drain}\n"));
        acme.start(&["run"]);
        acme.ready(0);
        acme.does(&["submit", &format!("sha256:{}", hash(drain)), "--label", "symbol"]);
        let slow = runtime.block_on(Slow::begin(&acme.data.join("local.sock")));
        acme.signal("TERM");
        if signals == 2 {
            wait_for("new requests are refused", || refuses(acme));
            acme.signal("TERM");
        }
        assert_eq!(acme.end(), Some(code), "{}", acme.log());
        assert!(runtime.block_on(slow.finish()).is_none(), "it got no answer");
        fs::write(acme.data.join("staydown.toml"), settings).unwrap();
    }
    assert!(acme.log().contains("stopped at once by a second signal"), "{}", acme.log());
    assert!(acme.log().contains("stopped with calls still under way"), "{}", acme.log());
    acme.start(&["run"]);
    acme.ready(0);
    assert_eq!(acme.status()["entries"], 2, "what was acknowledged is there");
    acme.stop();
}

/// The findings of one area: level and text.
fn findings(told: &Value, area: &str) -> Vec<(String, String)> {
    let findings = told["findings"].as_array().unwrap().iter().filter(|finding| finding["area"] == area);
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    findings.map(|finding| (text(finding, "level"), text(finding, "what"))).collect()
}

#[test]
fn doctor_looks_at_a_node_that_runs_and_at_one_that_does_not() {
    let mut forum = Forum::found(2);
    let nobody = Company::new(forum.folder.path(), "nobody");
    assert!(nobody.run(&["doctor"]).ends_with(1).out.contains("fix: staydown init"));
    let told = forum.companies[0].run(&["doctor", "--json"]).ends_with(1).json();
    assert!(findings(&told, "files").iter().any(|(_, what)| what.ends_with("has not joined a forum yet")), "{told}");
    forum.join();
    let [acme, bolt] = &mut forum.companies[..] else { panic!("two companies") };
    acme.does(&["submit", &format!("sha256:{}", hash(1)), "--label", "symbol"]);
    let told = acme.does(&["doctor", "--json"]).json();
    assert_eq!((&told["ok"], &told["running"]), (&true.into(), &true.into()), "{told}");
    assert!(findings(&told, "peers")[0].1.starts_with("bolt: connected"), "{told}");
    assert_eq!(findings(&told, "limits").len(), 1, "{told}");

    acme.stop();
    let told = acme.does(&["doctor", "--json"]).json();
    assert_eq!((&told["ok"], &told["running"]), (&true.into(), &false.into()), "{told}");
    assert!(findings(&told, "peers")[0].1.contains("reached, and it has the key that the charter lists"), "{told}");
    assert!(findings(&told, "store")[0].1.starts_with("it opens"), "{told}");
    assert_eq!(findings(&told, "journal"), [("OK".to_owned(), "it reads from end to end".to_owned())]);
    let text = acme.does(&["doctor"]);
    assert!(text.out.contains("OK    keys") && text.err.contains("The node does not run."), "{text:?}");

    bolt.stop();
    let told = acme.run(&["doctor", "--json"]).ends_with(1).json();
    assert_eq!(findings(&told, "peers")[0].0, "FAIL", "{told}");
    fs::write(acme.data.join("policy.toml"), "nonsense").unwrap();
    let key = acme.data.join("keys/log-root.pem");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let told = acme.run(&["doctor"]).ends_with(1).out;
    assert!(told.contains("FAIL  policy") && told.contains("fix: chmod 600"), "{told}");
}

#[test]
fn check_has_one_line_and_the_codes_of_monitoring() {
    let mut forum = Forum::found(2);
    let down = forum.companies[0].run(&["check"]).ends_with(2);
    assert!(down.out.starts_with("CRITICAL: the node cannot be reached"), "{down:?}");
    forum.join();
    let [acme, bolt] = &mut forum.companies[..] else { panic!("two companies") };
    let ran = acme.does(&["check"]);
    assert_eq!(ran.out.lines().count(), 1);
    assert!(ran.out.starts_with("OK: in sync with 1 of 1 peers, 0 entries | peers=1;;;0;1 entries=0 "), "{ran:?}");
    // A list that is empty and reaches nobody is no list to rely on.
    acme.does(&["submit", &format!("sha256:{}", "ab".repeat(32)), "--label", "symbol"]);
    bolt.stop();
    wait_for("that nobody is there is a warning", || {
        let ran = acme.run(&["check", "--json"]);
        (ran.code == Some(1)).then(|| assert_eq!(ran.json()["level"], "WARNING"))
    });
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("man");
    run(&["man", "-o", out.to_str().unwrap()]).ends_with(0);
    for page in ["staydown.1", "staydown-config-show.1", "staydown-charter-admit.1", "staydown.toml.5"] {
        let text = fs::read_to_string(out.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).ends_with(0).out.contains("doctor"), "{shell}");
    }
}
