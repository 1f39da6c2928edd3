//! What the node is reached by and whom it reaches: ports, socket, peers, and how many files may be open for that.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use tokio::net::UnixStream;

use super::{Findings, Here, Level};
use crate::cli::client::Node;
use crate::cli::failure::{Exit, Failure};
use crate::cli::show;
use crate::config::Config;
use crate::keys::TlsIdentity;
use crate::net::tls::{ConnectError, Connector, Roster, Tls};
use crate::node::WEB_ADDRESS_FILE;
use crate::replica::charter::Charter;
use crate::replica::ids::MemberId;
use crate::wire::local;

/// Longest path of a Unix socket that Linux takes, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// Files that a busy node has open: 512 connections of peers, 1,024 of our own programs, the store, and room for exports.
const OPEN_FILES_MIN: u64 = 4_096;
/// Peers that are dialled at once.
const DIALS_AT_ONCE: usize = 16;
/// Clocks that differ by more than this are told: health says so at a minute.
const CLOCK_OFFSET_MAX_MS: i64 = 10_000;

/// The node that runs here.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) status: local::StatusResponse,
    pub(super) peers: Vec<local::PeerState>,
    /// What the system says of its limits; empty if it says nothing.
    pub(super) limits: String,
}

/// Asks for the node over its socket.
pub(super) async fn node(config: &Config, found: &mut Findings) -> Option<Running> {
    let path = &config.local.socket;
    match running(path).await {
        Ok(running) => {
            found.ok("socket", format!("{} answers", path.display()));
            Some(running)
        }
        Err(failure) if failure.fix.as_deref() == Some("staydown run") => {
            socket_place(path, found);
            None
        }
        Err(failure) => {
            found.failure("socket", Level::Fail, failure);
            None
        }
    }
}

async fn running(path: &Path) -> Result<Running, Failure> {
    let node = Node::connect(path).await?;
    let status = node.status(local::StatusRequest {}).await?;
    let peers = node.peers(local::ListPeersRequest {}).await?.peers;
    let pid = UnixStream::connect(path).await.ok().and_then(|socket| socket.peer_cred().ok()?.pid());
    let limits = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok()).unwrap_or_default();
    Ok(Running { node, status, peers, limits })
}

/// Whether a socket can be made there.
fn socket_place(path: &Path, found: &mut Findings) {
    let shown = path.display();
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let what = format!("the path {shown} has {length} bytes, a socket's at most {SOCKET_PATH_MAX}");
        return found.fail("socket", what, "set local.socket to a shorter one, as in /run/staydown/local.sock");
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => found.ok("socket", format!("{shown} can be made")),
        Err(error) => {
            let fix = "make the folder, owned by the node's user (systemd: RuntimeDirectory=staydown)";
            found.fail("socket", format!("{}: {}", folder.display(), io::Error::from(error)), fix);
        }
    }
}

/// Where peers reach us: ours if the node runs, else free.
pub(super) fn ports(config: &Config, here: &Here<'_>, running: Option<&Running>, found: &mut Findings) {
    match running {
        Some(running) => {
            found.ok("ports", format!("peers are awaited on {}", running.status.peer_address));
            if let Ok(address) = fs::read_to_string(config.data.join(WEB_ADDRESS_FILE)) {
                found.ok("ports", format!("the console is on {}://{}", config.web.scheme(), address.trim()));
            }
        }
        None => {
            free("peer.listen", config.peer.listen, found);
            config.web.listen.into_iter().for_each(|address| free("web.listen", address, found));
        }
    }
    let elsewhere =
        here.member().into_iter().flat_map(|member| &member.endpoints).find(|endpoint| !is_loopback(endpoint));
    if let Some(endpoint) = elsewhere.filter(|_| config.peer.listen.ip().is_loopback()) {
        let what =
            format!("the charter says {endpoint}, but peer.listen {} takes nobody from elsewhere", config.peer.listen);
        found.warn("ports", what, "set peer.listen to 0.0.0.0:7700, unless something here hands connections on");
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn free(setting: &'static str, address: SocketAddr, found: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_listener) => found.ok("ports", format!("{setting} {address} is free")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("see who has it: ss -ltnp 'sport = :{}'; or set {setting}", address.port())
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("this machine does not have {}: set {setting}", address.ip())
                }
                io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE; or set {setting}")
                }
                _ => format!("set {setting}"),
            };
            found.fail("ports", format!("{setting} {address}: {error}"), fix);
        }
    }
}

/// What the running node knows of its peers.
pub(super) fn peers_of_running(running: &Running, found: &mut Findings) {
    let connected = |peer: &local::PeerState| matches!(peer.state.as_str(), "PULLING" | "FOLLOWING");
    let nobody = !running.peers.is_empty() && !running.peers.iter().any(connected);
    for peer in &running.peers {
        let name = &peer.member;
        if !connected(peer) {
            let (cause, fix) = peer.last_error.split_once("; fix: ").unwrap_or((&peer.last_error, ""));
            let cause = if cause.is_empty() { "not connected yet" } else { cause };
            let level = if nobody { Level::Fail } else { Level::Warn };
            found.add(
                "peers",
                level,
                format!("{name} ({}): {cause}", peer.state),
                Some(fix.to_owned()).filter(|fix| !fix.is_empty()),
            );
            continue;
        }
        found.ok("peers", format!("{name}: connected, {} blocks behind it", show::count(peer.theirs_missing_here)));
        if peer.clock_offset_ms.abs() > CLOCK_OFFSET_MAX_MS {
            let what = format!("our clock and that of {name} differ by {} s", peer.clock_offset_ms / 1_000);
            found.warn("clock", what, "set both by the network: timedatectl set-ntp true");
        }
    }
}

/// Dials every other member, as the node would.
pub(super) async fn peers(
    config: &Config,
    charter: &Charter,
    me: Option<MemberId>,
    ours: &TlsIdentity,
    found: &mut Findings,
) {
    let pins = charter.active().flat_map(|member| member.pins.iter().map(|pin| (*pin, member.id)));
    let roster = Arc::new(ArcSwap::from_pointee(Roster::new(pins)));
    let tls = match Tls::new(ours, roster) {
        Ok(tls) => tls,
        Err(error) => return found.failure("peers", Level::Fail, Failure::new(Exit::Failed, error.to_string())),
    };
    let mut dials = Vec::new();
    for member in charter.active().filter(|member| Some(member.id) != me) {
        let ours = config.peer.endpoints.get(&member.name).map(std::slice::from_ref);
        let endpoints = ours.unwrap_or(&member.endpoints);
        if endpoints.is_empty() {
            found.warn("peers", format!("{}: the charter has no endpoint", member.name), "set peer.endpoints");
        }
        let dial = |endpoint: &String| {
            (member.name.clone(), endpoint.clone(), Connector::new(tls.clone(), member.id, &member.name, endpoint))
        };
        dials.extend(endpoints.iter().map(dial));
    }
    let dialled = futures_util::stream::iter(dials).map(|(name, endpoint, connector)| async move {
        let outcome = connector.connect().await.map(drop);
        (name, endpoint, outcome)
    });
    told(dialled.buffered(DIALS_AT_ONCE).collect().await, found);
}

/// A member that one of its endpoints leads to is reached; that nobody is reached is not a peer's fault.
fn told(dialled: Vec<(String, String, Result<(), ConnectError>)>, found: &mut Findings) {
    let reached: BTreeSet<String> =
        dialled.iter().filter(|(_, _, outcome)| outcome.is_ok()).map(|(name, ..)| name.clone()).collect();
    for (name, endpoint, outcome) in dialled {
        match outcome {
            Ok(()) => {
                found.ok("peers", format!("{name} at {endpoint}: reached, and it has the key that the charter lists"));
            }
            Err(error) => {
                let refused = matches!(error, ConnectError::Refused { .. });
                let level = if reached.is_empty() || refused { Level::Fail } else { Level::Warn };
                found.add("peers", level, error.to_string(), error.fix().map(str::to_owned));
            }
        }
    }
}

/// How many files may be open: of the running node as the system tells it, else of this shell.
pub(super) fn open_files(limits: Option<&str>, found: &mut Findings) {
    let (limit, whose) = match limits {
        Some(limits) => (soft_limit(limits), "the node"),
        None => (rustix::process::getrlimit(rustix::process::Resource::Nofile).current, "this shell"),
    };
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => found.warn(
            "limits",
            format!("{whose} may have {limit} files open; a busy node needs {OPEN_FILES_MIN}"),
            "LimitNOFILE=65536 in the unit, or ulimit -n 65536",
        ),
        Some(limit) => found.ok("limits", format!("{whose} may have {limit} files open")),
        None => {}
    }
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(look: impl FnOnce(&mut Findings)) -> Vec<(&'static str, String, Option<String>)> {
        let mut found = Findings::default();
        look(&mut found);
        found.0.into_iter().map(|finding| (finding.level, finding.what, finding.fix)).collect()
    }

    #[test]
    fn a_port_that_somebody_else_has_fails_with_how_to_see_who() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = told_of(|found| free("peer.listen", address, found));
        assert_eq!(told[0].0, "FAIL");
        assert!(told[0].2.as_ref().unwrap().contains(&format!("sport = :{}", address.port())));
        drop(listener);
        assert_eq!(told_of(|found| free("peer.listen", address, found))[0].0, "OK");
    }

    #[test]
    fn the_place_of_a_socket_must_be_short_and_writable() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(told_of(|found| socket_place(&folder.path().join("s"), found))[0].0, "OK");
        let long = folder.path().join("x".repeat(SOCKET_PATH_MAX));
        assert!(told_of(|found| socket_place(&long, found))[0].1.contains("a socket's at most 107"));
        assert_eq!(told_of(|found| socket_place(&folder.path().join("none/s"), found))[0].0, "FAIL");
    }

    #[test]
    fn limits_are_read_as_the_system_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1_024));
        assert_eq!(told_of(|found| open_files(Some(limits), found))[0].0, "WARN");
        assert_eq!(told_of(|found| open_files(Some("Max open files 65536 65536 files"), found))[0].0, "OK");
        assert_eq!(told_of(|found| open_files(Some(""), found)), []);
    }

    #[test]
    fn one_peer_that_is_down_is_a_warning_and_all_of_them_a_failure() {
        let down = |name: &str| {
            let source = io::Error::from(io::ErrorKind::ConnectionRefused);
            let (name, address) = (name.to_owned(), "a:1".to_owned());
            (name.clone(), address.clone(), Err(ConnectError::Unreachable { name, address, source }))
        };
        let levels = |dialled| told_of(|found| told(dialled, found)).into_iter().map(|told| told.0).collect::<Vec<_>>();
        assert_eq!(levels(vec![("bolt".into(), "b:1".into(), Ok(())), down("cyan")]), ["OK", "WARN"]);
        assert_eq!(levels(vec![down("bolt"), down("cyan")]), ["FAIL", "FAIL"]);
        assert!(is_loopback("localhost:1") && is_loopback("[::1]:7700") && !is_loopback("a.example.org:7700"));
    }
}
