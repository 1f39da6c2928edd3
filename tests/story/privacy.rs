//! No surveillance: what is looked up stays with whoever asks. A hundred thousand values are looked up at a node that
//! talks as much as it can; then its data directory, its log, and every byte that its peer got are searched for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use staydown::clock;
use staydown::keys::{NodeKeys, Permissions, TlsIdentity};
use staydown::net::tls::{Connector, Roster, Tls};
use staydown::replica::ids::{MemberId, hex, sha256};
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Channel, Endpoint};

use crate::world::{Company, Forum, address, poster, wait_for};

/// Values that are looked up and on no list.
const VALUES: u64 = 100_000;
/// Signals of one request.
const SIGNALS: usize = 64;
/// Signals that are listed, so that there are matches, and enough of each to trip the flood breaker.
const LISTED: u64 = 5;
/// Looks at the files, 20 ms apart or more, that must all show the same.
const QUIET_LOOKS: usize = 30;
/// Bytes of headers on one connection. A hundred thousand values have two million.
const HEADERS_MAX: usize = 64 * 1024;

/// What one side said on each of its connections.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Vec<u8>>>>);

impl Heard {
    fn connections(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    /// How much was said on each so far.
    fn lengths(&self) -> Vec<usize> {
        self.0.lock().unwrap().iter().map(Vec::len).collect()
    }
}

/// A client of a company's local service.
pub fn client(company: &Company) -> ForumClient<Channel> {
    let socket = company.data.join("local.sock");
    let channel =
        Endpoint::from_static("http://local").connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }));
    ForumClient::new(channel)
}

/// A value of any kind, from its number.
fn value(n: u64) -> (&'static str, Vec<u8>) {
    let digest = |salt: &[u8]| sha256(&[b"looked up", salt, &n.to_be_bytes()]).to_vec();
    match n % 5 {
        0 => ("sha256", digest(b"")),
        1 => ("md5", digest(b"")[..16].to_vec()),
        2 => ("sha1", digest(b"")[..20].to_vec()),
        3 => ("sha512", [digest(b"a"), digest(b"b")].concat()),
        _ => ("pdq", digest(b"")),
    }
}

fn listed(n: u64) -> Vec<u8> {
    sha256(&[b"listed", &n.to_be_bytes()]).to_vec()
}

fn signal((kind, digest): &(&'static str, Vec<u8>)) -> l::Signal {
    l::Signal { r#type: (*kind).into(), value: hex(digest) }
}

/// Pieces of a value in every form in which a program may write it down, all of one length in bytes. Each is long enough
/// that chance does not find it.
struct Pieces {
    length: usize,
    known: BTreeSet<Vec<u8>>,
    /// One bit for each remainder of a piece's rolling hash: most places of a haystack are passed by with one look.
    bits: Vec<u64>,
}

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Pieces {
    fn of(length: usize, forms: impl Iterator<Item = Vec<u8>>) -> Self {
        let known: BTreeSet<Vec<u8>> =
            forms.filter(|form| form.len() >= length).map(|f| f[..length].to_vec()).collect();
        let mut pieces = Self { length, known: BTreeSet::new(), bits: vec![0; 1 << 20] };
        for piece in &known {
            let hash = piece.iter().fold(0_u64, |hash, byte| roll(hash, *byte));
            let (word, bit) = place(hash);
            pieces.bits[word] |= bit;
        }
        pieces.known = known;
        pieces
    }

    /// The first piece in `hay`, and what stands around it.
    fn found_in(&self, hay: &[u8]) -> Option<String> {
        let gone = (0..self.length).fold(1_u64, |power, _| power.wrapping_mul(BASE));
        let mut hash = 0_u64;
        for (at, byte) in hay.iter().enumerate() {
            hash = roll(hash, *byte);
            if at >= self.length {
                hash = hash.wrapping_sub((u64::from(hay[at - self.length]) + 1).wrapping_mul(gone));
            }
            let (word, bit) = place(hash);
            if at + 1 >= self.length && self.bits[word] & bit != 0 {
                let piece = &hay[at + 1 - self.length..=at];
                if self.known.contains(piece) {
                    let around = &hay[at.saturating_sub(200)..hay.len().min(at + 40)];
                    return Some(format!(
                        "{:?} in {:?}",
                        piece.escape_ascii().to_string(),
                        around.escape_ascii().to_string()
                    ));
                }
            }
        }
        None
    }
}

fn roll(hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(u64::from(byte) + 1)
}

fn place(hash: u64) -> (usize, u64) {
    let folded = (hash ^ hash >> 29).wrapping_mul(BASE) >> 38;
    (usize::try_from(folded >> 6).unwrap(), 1 << (folded & 63))
}

/// What must stand nowhere.
struct Needles(Vec<Pieces>);

impl Needles {
    fn new(values: &[Vec<u8>]) -> Self {
        let text = values.iter().flat_map(|value| {
            let hex = hex(value);
            // A value may begin at any place of what is written as base64: three alignments, of which the first letters
            // hold something of what stands before.
            let base64 = (0..3).map(|skip| data_encoding::BASE64.encode(&value[skip..]).into_bytes());
            let escaped = value.escape_ascii().to_string();
            [hex.to_uppercase(), hex, escaped].map(String::into_bytes).into_iter().chain(base64)
        });
        let numbers = values
            .iter()
            .map(|value| value.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ").into_bytes());
        Self(vec![Pieces::of(8, values.iter().cloned()), Pieces::of(12, text), Pieces::of(26, numbers)])
    }

    #[track_caller]
    fn in_none_of(&self, hays: &BTreeMap<String, Vec<u8>>) {
        for (name, hay) in hays {
            for pieces in &self.0 {
                if let Some(found) = pieces.found_in(hay) {
                    panic!("{name} ({} bytes) has {found}", hay.len());
                }
            }
        }
    }

    fn is_in(&self, hay: &[u8]) -> bool {
        self.0.iter().any(|pieces| pieces.found_in(hay).is_some())
    }
}

/// All files below `folder`.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.metadata() {
                Ok(at) if at.is_dir() => folders.push(path),
                Ok(at) if at.is_file() => drop(found.insert(path.display().to_string(), fs::read(&path).unwrap())),
                _ => {} // the socket
            }
        }
    }
    found
}

/// Who a company is towards its peers.
struct Member {
    id: MemberId,
    name: String,
    identity: TlsIdentity,
    /// Where its node listens.
    address: String,
}

impl Member {
    fn of(company: &Company) -> Self {
        let id = fs::read_to_string(company.data.join("member")).unwrap();
        let id = data_encoding::HEXLOWER.decode(id.trim().as_bytes()).unwrap();
        Self {
            id: MemberId::from_slice(&id).unwrap(),
            name: company.name.clone(),
            identity: NodeKeys::load_with(&company.data.join("keys"), Permissions::Strict).unwrap().tls,
            address: company.address.to_string(),
        }
    }
}

/// Stands in for `server` towards `caller`, and passes on what both say: decrypted, kept, encrypted again. It has the
/// keys of both. `said_by_caller` and `said_by_server` get every byte.
fn listen_in(
    runtime: &Runtime,
    listener: std::net::TcpListener,
    caller: &Member,
    server: &Member,
    said_by_caller: &Heard,
    said_by_server: &Heard,
) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(server.identity.chain().to_vec(), server.identity.private_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let roster = Roster::new([(server.identity.pin(), server.id)]);
    let tls = Tls::new(&caller.identity, Arc::new(ArcSwap::from_pointee(roster))).unwrap();
    let dial = Connector::new(tls, server.id, &server.name, &server.address);
    let kept = [said_by_caller, said_by_server].map(Heard::clone);
    runtime.spawn(async move {
        let (listener, mut connections) = (TcpListener::from_std(listener).unwrap(), JoinSet::new());
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, dial, [by_caller, by_server]) = (acceptor.clone(), dial.clone(), kept.clone());
            connections.spawn(async move {
                let (Ok(near), Ok(far)) = (acceptor.accept(tcp).await, dial.connect().await) else { return };
                let (near, far) = (tokio::io::split(near), tokio::io::split(far));
                tokio::join!(pass_on(near.0, far.1, by_caller), pass_on(far.0, near.1, by_server));
            });
        }
    });
}

async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, heard: Heard) {
    let connection = {
        let mut connections = heard.0.lock().unwrap();
        connections.push(Vec::new());
        connections.len() - 1
    };
    let mut room = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut room).await {
        heard.0.lock().unwrap()[connection].extend_from_slice(&room[..read]);
        if to.write_all(&room[..read]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}

/// What the frames of one HTTP/2 connection have in headers, in bytes. They are packed, so that no search sees what they
/// say; a few of them hold no hundred thousand values.
fn count_headers(bytes: &[u8]) -> usize {
    let frames = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(bytes);
    let (mut rest, mut sum) = (frames, 0);
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if matches!(kind, 0x1 | 0x5 | 0x9) {
            sum += length;
        }
        rest = tail.get(length..).unwrap_or_default();
    }
    sum
}

/// Asks for everything, in every way that there is: as hashes, in addresses, in files, in bulk. Returns the digests of the
/// files.
async fn look_up(at: &Company, values: &[(&'static str, Vec<u8>)], picture: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut client = client(at);
    let mut matched = 0;
    let mut files = Vec::new();
    for (n, chunk) in values.chunks(SIGNALS - 1).enumerate() {
        let one_listed = ("sha256", listed(n as u64 % LISTED));
        let signals = chunk.iter().chain(n.is_multiple_of(2).then_some(&one_listed)).map(signal).collect();
        let request = l::LookupRequest { signals, explain: n % 3 == 0, ..Default::default() };
        let answer = client.lookup(request).await.unwrap().into_inner();
        matched += answer.matches.len();
        if n % 50 == 0 {
            let (kind, digest) = &chunk[0];
            let address = |value| l::Signal { r#type: "url".into(), value };
            // Questions that are refused repeat nothing elsewhere either.
            let broken = [
                address(format!("mailto:{}@example.org", hex(digest))),
                l::Signal { r#type: String::new(), value: format!("https://{}%2F/", hex(digest)) },
                l::Signal { r#type: hex(digest), value: hex(digest) },
                l::Signal { r#type: (*kind).into(), value: format!("{}0", hex(digest)) },
            ];
            for signal in broken {
                let request = l::LookupRequest { signals: vec![signal], ..Default::default() };
                assert_eq!(client.lookup(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
            }
            let file = format!("a text that has {}", hex(digest)).into_bytes();
            files.push(("sha256", sha256(&[&file])));
            let addresses =
                [format!("https://example.org/{}?q", hex(digest)), format!("{}.example.org/a/b", hex(digest))];
            let request = l::LookupRequest {
                signals: addresses.map(address).into(),
                files: vec![file.into(), fs::read(picture).unwrap().into()],
                dihedral: true,
                explain: true,
                ..Default::default()
            };
            let answer = client.lookup(request).await.unwrap().into_inner();
            assert!(answer.matches.is_empty() && answer.files.len() == 2 && answer.files[1].signals.len() > 8);
            let broken = l::LookupRequest { files: vec![b"\x89PNG\r\n\x1a\n".to_vec().into()], ..Default::default() };
            assert_eq!(client.lookup(broken).await.unwrap_err().code(), tonic::Code::InvalidArgument);
            let request = l::GetEntryRequest { signal: Some(signal(&chunk[0])), receipts: true, ..Default::default() };
            assert_eq!(client.get_entry(request).await.unwrap_err().code(), tonic::Code::NotFound);
        }
    }
    assert!(matched > 100, "{matched}");
    let bulk = ["sha256", "md5", "sha1", "sha512", "pdq"].map(|kind| {
        let of_kind = values.iter().filter(|(other, _)| *other == kind).take(10_000);
        let digests: Vec<_> = of_kind.flat_map(|(_, digest)| digest.clone()).collect();
        l::LookupBulkRequest { r#type: kind.into(), digests: digests.into(), ..Default::default() }
    });
    let mut answers = client.lookup_bulk(tokio_stream::iter(bulk)).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.looked_up > 0 && answer.hits.is_empty() && answer.refusal.is_none());
    }
    files.into_iter().map(|(kind, digest)| (kind, digest.to_vec())).collect()
}

#[test]
fn nothing_that_was_looked_up_is_stored_logged_or_sent() {
    let mut forum = Forum::found(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let [acme, bolt] = [0, 1].map(|n| Member::of(&forum.companies[n]));
    let [from_acme, from_bolt] = [Heard::default(), Heard::default()];
    // Each node finds the other only through somebody who listens in.
    for (n, name) in [(0, "bolt"), (1, "acme")] {
        let listener = std::net::TcpListener::bind(address()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let settings = forum.companies[n].data.join("staydown.toml");
        let at = listener.local_addr().unwrap();
        let more = format!("[peer.endpoints]\n{name} = \"{at}\"\n[log]\nfilter = \"trace\"\n");
        fs::write(&settings, fs::read_to_string(&settings).unwrap() + &more).unwrap();
        match n {
            0 => listen_in(&runtime, listener, &acme, &bolt, &from_acme, &from_bolt),
            _ => listen_in(&runtime, listener, &bolt, &acme, &from_bolt, &from_acme),
        }
    }
    forum.join();

    // Some are listed, two companies stand behind them, and that is known at both nodes: the search finds what is there.
    let hashes: Vec<_> = (0..LISTED).map(|n| format!("sha256:{}", hex(&listed(n)))).collect();
    let say = |at: &Company, command: &[&str]| {
        at.does(&[command, &hashes.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    };
    say(&forum.companies[0], &["submit", "--label", "symbol", "--wait-peers", "1"]);
    for hash in &hashes {
        forum.companies[1].does(&["entry", "endorse", hash]);
    }
    forum.agree();
    let listed_needles = Needles::new(&(0..LISTED).map(listed).collect::<Vec<_>>());
    assert!(from_acme.connections().iter().any(|said| listed_needles.is_in(said)), "acme sent what it lists");
    let [at_acme, at_bolt] = [0, 1].map(|n: usize| forum.companies[n].data.clone());
    for data in [&at_acme, &at_bolt] {
        assert!(files(data).values().any(|file| listed_needles.is_in(file)), "{}", data.display());
    }

    // Quiet, then the questions.
    let mut before = files(&at_acme);
    let mut quiet = 0;
    wait_for("nothing is written any more", || {
        let now = files(&at_acme);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        (quiet == QUIET_LOOKS).then_some(())
    });
    let (sent_before, logged_before) = (from_acme.lengths(), forum.companies[0].log().len());
    assert!(logged_before > 0, "the log can be read");
    let (png, copy) = poster(forum.folder.path(), 77);
    let begun = clock::instant();
    let mut values: Vec<_> = (0..VALUES).map(value).collect();
    let files_looked_up = runtime.block_on(look_up(&forum.companies[0], &values, &png));
    values.extend(files_looked_up);
    let by_hand = (VALUES..VALUES + 5).map(value).collect::<Vec<_>>();
    for (kind, digest) in &by_hand {
        forum.companies[0].run(&["match", "--explain", &format!("{kind}:{}", hex(digest))]).ends_with(3);
    }
    for file in [&png, &copy] {
        let hashed = forum.companies[0].does(&["hash", file, "--json"]).json();
        for hash in hashed["hashes"].as_array().unwrap() {
            let digest = data_encoding::HEXLOWER.decode(hash["value"].as_str().unwrap().as_bytes()).unwrap();
            values.push(("", digest));
        }
        forum.companies[0].run(&["match", file]).ends_with(3);
    }
    values.extend(by_hand);
    let shown = forum.companies[0].does(&["policy", "show", "--json"]).json();
    eprintln!("{} values looked up in {:?}: {}", values.len(), begun.elapsed(), shown["breaker"]);
    assert_eq!(shown["breaker"]["tripped"], LISTED, "{shown}");

    // Matches, too, leave nothing behind, nor does a breaker that has tripped.
    let after = files(&at_acme);
    let changed: Vec<_> = after.iter().filter(|(name, file)| before.get(*name) != Some(file)).map(|(n, _)| n).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
    for company in &mut forum.companies {
        company.stop();
    }
    let mut hays = files(&at_acme);
    hays.extend(files(&at_bolt));
    let needles = Needles::new(&values.into_iter().map(|(_, digest)| digest).collect::<Vec<_>>());
    let log = forum.companies[0].log().into_bytes();
    // Of the libraries below, which would write down what passes through them, no more than this comes at any filter.
    assert!(log.len() - logged_before > 50_000, "it talks as much as it can: {}", log.len());
    // Matches are in no log and in nothing that was sent since, though the list itself is at both nodes.
    let mut since = BTreeMap::from([("log of acme since".to_owned(), log[logged_before..].to_vec())]);
    for (n, said) in from_acme.connections().into_iter().enumerate() {
        assert!(count_headers(&said) < HEADERS_MAX, "{} bytes of headers", count_headers(&said));
        let before = sent_before.get(n).copied().unwrap_or_default();
        since.insert(format!("connection {n} since"), said[before..].to_vec());
        hays.insert(format!("connection {n}"), said);
    }
    let said: usize = since.values().map(Vec::len).sum();
    eprintln!("{said} bytes logged and sent since, {} bytes searched", hays.values().map(Vec::len).sum::<usize>());
    listed_needles.in_none_of(&since);
    hays.insert("log of acme".to_owned(), log);
    hays.insert("log of bolt".to_owned(), forum.companies[1].log().into_bytes());
    needles.in_none_of(&hays);
}

/// The search finds what it should.
#[test]
fn a_value_is_found_in_whatever_form_it_is_written_down() {
    let values: Vec<_> = (0..1_000).map(|n| value(n).1).collect();
    let needles = Needles::new(&values);
    let one = &values[777];
    let before = |n: usize| vec![0xc3; n];
    let mut forms: Vec<Vec<u8>> = vec![
        one.clone(),
        hex(one).into_bytes(),
        hex(one).to_uppercase().into_bytes(),
        format!("{one:?}").into_bytes(),
        format!("{:?}", bytes::Bytes::from(one.clone())).into_bytes(),
    ];
    forms.extend((0..3).map(|n| data_encoding::BASE64.encode(&[before(n), one.clone()].concat()).into_bytes()));
    for form in forms {
        let hay = [b"some text before ", form.as_slice(), b" and after"].concat();
        assert!(needles.is_in(&hay), "{:?}", form.escape_ascii().to_string());
        assert!(!needles.is_in(&hay[..20]) && !needles.is_in(b"and nothing where there is nothing to be found"));
    }
}
