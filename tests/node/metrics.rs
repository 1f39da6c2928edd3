//! `/metrics` of a real node, and everything that is made for it: the rules, the dashboard and the documentation name only
//! what a scrape has. Read by Prometheus' own tool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use staydown::wire::local as l;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::forum::{Forum, Node, hash};

const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A hash or an id in a label would have at least so many digits in a row.
const DIGITS: usize = 24;

/// Debian's package `prometheus` has it; CI must have it.
#[expect(clippy::print_stderr, reason = "says what was skipped")]
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("promtool")).find(|tool| tool.is_file());
    assert!(found.is_some() || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "promtool is missing in CI");
    if found.is_none() {
        eprintln!("skipped: promtool is not on this machine (Debian's package prometheus has it)");
    }
    found
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Runs promtool; `input` is its standard input.
fn promtool_says_yes(tool: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(tool)
        .args(arguments)
        .current_dir(deploy("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "promtool {arguments:?}:\n{told}");
    assert!(arguments != ["check", "metrics"] || told.is_empty(), "promtool has remarks:\n{told}");
}

/// Status, headers and body of an answer.
async fn get(console: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let host = console.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn token(node: &mut Node, name: &str, scope: &str) -> String {
    let request = l::CreateTokenRequest { name: name.into(), scopes: vec![scope.into()], ..Default::default() };
    let made = node.client.create_token(request).await.unwrap().into_inner();
    format!("Bearer {}", made.secret)
}

/// What the node tells after some work: lookups of all kinds, a submission, a refusal, a peer that answers.
async fn worked() -> (Forum, Node, Node, String) {
    let mut forum = Forum::found(2);
    let (mut acme, mut bolt) = (forum.start_with_console(0).await, forum.start(1).await);
    acme.open().await;
    bolt.open().await;
    acme.say(l::Stance::Submit, "sha256", &hash(1)).await;
    bolt.say(l::Stance::Dispute, "sha256", &hash(1)).await;
    acme.lookup("sha256", &hash(2)).await;
    let file = l::LookupRequest { files: vec![b"a note".to_vec().into()], ..Default::default() };
    acme.client.lookup(file).await.unwrap();
    acme.client.submit(l::SubmitRequest::default()).await.unwrap_err();
    acme.agrees_with(&mut bolt).await;
    let bearer = token(&mut acme, "prometheus", "metrics").await;
    (forum, acme, bolt, bearer)
}

/// The value of a sample by its name and labels, as they are written.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// Name, type and help of all metrics of a scrape.
fn described(text: &str) -> BTreeMap<String, (String, String)> {
    let helps: BTreeMap<_, _> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), helps[name].to_owned()))).collect()
}

/// Names of samples that a scrape may have.
fn samples(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, (kind, _)) in described(text) {
        if kind == "histogram" {
            names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        } else {
            names.insert(name);
        }
    }
    names
}

/// What looks like one of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter(|name| name.starts_with("staydown_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_tells_how_the_node_is_and_what_it_did() {
    let (_forum, acme, bolt, bearer) = worked().await;
    let console = acme.console.clone().unwrap();
    let all = [("authorization", bearer.as_str())];
    assert_eq!(get(&console, "/metrics", &[]).await.0, 401, "nobody reads them without a token");
    let (status, head, mut text) = get(&console, "/metrics", &all).await;
    assert!(status == 200 && head.contains(PLAIN), "{head}");
    wait_for!("the peer's agreement is known", {
        let agrees = value(&text, "staydown_peer_agrees{member=\"bolt\"}") == Some(1.0);
        if !agrees {
            text = get(&console, "/metrics", &all).await.2;
        }
        agrees
    });
    for (sample, expected) in [
        ("staydown_build_info{version=\"0.1.0\"}", 1.0),
        ("staydown_node_info{forum=\"Example Hash Forum\",member=\"acme\"}", 1.0),
        ("staydown_ready", 1.0),
        ("staydown_storage_failed", 0.0),
        ("staydown_entries{type=\"sha256\",status=\"active\"}", 1.0),
        ("staydown_entries_listed", 1.0),
        ("staydown_reviews_waiting{kind=\"disputed-own\"}", 1.0),
        ("staydown_reviews_waiting{kind=\"flood\"}", 0.0),
        ("staydown_outbox", 0.0),
        ("staydown_guard_pending", 0.0),
        ("staydown_charter_version", 1.0),
        ("staydown_members", 2.0),
        ("staydown_peers{state=\"banned\"}", 0.0),
        ("staydown_peer_connected{member=\"bolt\"}", 1.0),
        ("staydown_peer_blocks_missing_here{member=\"bolt\"}", 0.0),
        ("staydown_alarms{kind=\"diverged\"}", 0.0),
        ("staydown_fork_proofs", 0.0),
        ("staydown_lookups_total{kind=\"single\",verdict=\"allow\"}", 1.0),
        ("staydown_lookups_total{kind=\"file\",verdict=\"allow\"}", 1.0),
        ("staydown_lookup_duration_seconds_count{kind=\"file\"}", 1.0),
        ("staydown_submissions_total{outcome=\"durable\"}", 1.0),
        ("staydown_statements_total", 1.0),
        ("staydown_submission_duration_seconds_count", 1.0),
        ("staydown_hashing_duration_seconds_count", 1.0),
        ("staydown_refusals_total{side=\"local\",reason=\"field\"}", 1.0),
        ("staydown_refusals_total{side=\"local\",reason=\"token\"}", 1.0),
        ("staydown_http_requests_total{route=\"/metrics\",method=\"GET\",status=\"401\"}", 1.0),
        ("staydown_connections{side=\"peer_out\"}", 1.0),
    ] {
        let found = value(&text, sample);
        let name = sample.split('{').next().unwrap();
        let near: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(found, Some(expected), "{sample}; there are {near:#?}");
    }
    let submitted = "staydown_grpc_calls_total{service=\"staydown.local.v1.Forum\",method=\"Submit\",code=";
    assert_eq!(value(&text, &format!("{submitted}\"ok\"}}")), Some(1.0));
    assert_eq!(value(&text, &format!("{submitted}\"invalid_argument\"}}")), Some(1.0));
    for sample in [
        "staydown_certificate_end_timestamp_seconds{of=\"node\",member=\"acme\"}",
        "staydown_certificate_end_timestamp_seconds{of=\"peer\",member=\"bolt\"}",
        "staydown_charter_valid_until_timestamp_seconds",
        "staydown_peer_last_heard_timestamp_seconds{member=\"bolt\"}",
        "staydown_log_size_bytes{member=\"acme\"}",
        "staydown_connections{side=\"web\"}",
        "staydown_connections{side=\"local\"}",
        "staydown_commit_duration_seconds_count",
        "staydown_arrival_delay_seconds_count",
        "staydown_store_size_bytes",
        "staydown_journal_size_bytes",
        "staydown_disk_free_bytes",
        "staydown_process_resident_memory_bytes",
        "staydown_process_open_fds",
        "staydown_process_threads",
        "staydown_process_start_time_seconds",
    ] {
        let name = sample.split('{').next().unwrap();
        let near: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(value(&text, sample).is_some_and(|value| value > 0.0), "{sample}; there are {near:#?}");
    }
    let normal = "staydown_log_blocks{member=\"acme\",lane=\"normal\",log=\"";
    assert!(text.contains(normal), "{normal}");
    let (_, head, open) = get(&console, "/metrics", &[all[0], ("accept", "application/openmetrics-text;q=0.9")]).await;
    assert!(head.contains(OPEN) && open.ends_with("# EOF\n") && open.contains("# UNIT "), "{head}");
    acme.stop().await;
    bolt.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_for_a_scrape_names_what_it_has_and_nothing_else() {
    let (_forum, acme, bolt, bearer) = worked().await;
    let console = acme.console.clone().unwrap();
    let (_, _, text) = get(&console, "/metrics", &[("authorization", &bearer)]).await;
    acme.stop().await;
    bolt.stop().await;

    let in_a_row = |line: &str| line.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max().unwrap_or_default();
    let long: Vec<_> = text.lines().filter(|line| in_a_row(line) >= DIGITS).collect();
    assert!(long.is_empty(), "no hash and no id is a label: {long:#?}");

    let known = samples(&text);
    let rules = fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
    let tests = fs::read_to_string(deploy("prometheus/rules_test.yml")).unwrap();
    let dashboard = fs::read_to_string(deploy("grafana/staydown.json")).unwrap();
    for (file, text) in [("rules.yml", &rules), ("rules_test.yml", &tests), ("staydown.json", &dashboard)] {
        let unknown: Vec<_> = named(text).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let untested: Vec<_> = alerts.iter().filter(|alert| !tests.contains(**alert)).collect();
    assert!(alerts.len() > 30 && untested.is_empty(), "without a test: {untested:?}");

    documented(&text, &alerts);
    if let Some(tool) = promtool() {
        promtool_says_yes(&tool, &["check", "metrics"], &text);
    }
}

/// `docs/metrics.md` has a row `| name | type | meaning |` for each metric, and a row for each alert.
fn documented(text: &str, alerts: &[&str]) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ").map(|cell| cell.trim_matches(['`', '|', ' ']));
        let name = cells.next()?.split('{').next()?.to_owned();
        Some((name, cells.next()?.to_owned()))
    });
    let rows: BTreeMap<String, String> = rows.collect();
    let known = described(text);
    for (name, (kind, help)) in &known {
        assert_eq!(rows.get(name), Some(kind), "docs/metrics.md has no row: | `{name}` | {kind} | {help} |");
    }
    let gone: Vec<_> = rows.keys().filter(|name| name.starts_with("staydown_") && !known.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md has {gone:?}, which no scrape has");
    let missing: Vec<_> = alerts.iter().filter(|alert| !rows.contains_key(**alert)).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not have the alerts {missing:?}");
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_should() {
    let Some(tool) = promtool() else { return };
    promtool_says_yes(&tool, &["check", "rules", "rules.yml"], "");
    promtool_says_yes(&tool, &["test", "rules", "rules_test.yml"], "");
    // It looks for the file of the token, too.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("staydown.token");
    fs::write(&token, "sdt_example").unwrap();
    let example = fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
    let example = example.replace("/etc/prometheus/staydown.token", token.to_str().unwrap());
    fs::write(folder.path().join("prometheus.yml"), example).unwrap();
    fs::copy(deploy("prometheus/rules.yml"), folder.path().join("rules.yml")).unwrap();
    promtool_says_yes(&tool, &["check", "config", folder.path().join("prometheus.yml").to_str().unwrap()], "");
}

#[test]
fn prometheus_understands_every_query_of_the_dashboard() {
    let Some(tool) = promtool() else { return };
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(deploy("grafana/staydown.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<_> = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten().collect();
    // A rule is the only form in which promtool takes a query without a server.
    let rules = queries.iter().enumerate().map(|(n, query)| {
        let query = query["expr"].as_str().unwrap().replace("$instance", ".*").replace("$__rate_interval", "5m");
        serde_json::json!({"record": format!("dashboard:query_{n}"), "expr": query})
    });
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, rules.to_string()).unwrap();
    promtool_says_yes(&tool, &["check", "rules", file.to_str().unwrap()], "");
    assert!(queries.len() > 40, "{} queries are few", queries.len());
}

/// What Grafana needs of a dashboard: a title, panels with a title, a place and a query to the data source that is chosen.
#[test]
fn the_dashboard_is_one() {
    let text = fs::read_to_string(deploy("grafana/staydown.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dashboard["title"], "staydown");
    assert!(dashboard["uid"].is_string() && dashboard["schemaVersion"].as_u64() > Some(30));
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").map(|row| &row["title"]).collect();
    assert_eq!(rows, ["State", "Lookups", "Sync", "List", "Governance", "Machine"]);
    let mut ids = BTreeSet::new();
    let mut places: Vec<[u64; 4]> = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's, too");
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        let [x, y, w, h] = place;
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        let apart = |[a, b, c, d]: &[u64; 4]| x + w <= *a || a + c <= x || y + h <= *b || b + d <= y;
        assert!(places.iter().all(apart), "{title} lies over another panel");
        places.push(place);
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${source}", "{title}");
            assert!(panel["description"].is_string(), "{title}: says nothing of what to look for");
        }
    }
}
