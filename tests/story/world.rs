//! What a person has at hand: folders, files, and the program.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use staydown::{clock, hashing};
use tempfile::TempDir;

/// Longest wait for anything that must come true. The machines that run this are small and busy.
pub const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Name, group, jurisdiction.
pub const COMPANIES: [(&str, &str, &str); 3] = [("acme", "Acme", "FR"), ("bolt", "Bolt", "GB"), ("cyan", "Cyan", "FR")];

/// Waits for an answer, with a deadline.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = clock::instant();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "never came true: {what}");
        thread::sleep(POLL);
    }
}

/// The program, without the settings of whoever runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_staydown"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STAYDOWN_")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_DATA_HOME");
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command, stdin: &[u8]) -> Self {
        let shown = format!("{command:?}");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut input = child.stdin.take().unwrap();
        let input_bytes = stdin.to_vec();
        // A program that does not read its stdin closes it, which is no failure.
        let writer = thread::spawn(move || drop(input.write_all(&input_bytes)));
        let (out, err) = (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
        let mut child = Reaped(child);
        let status = wait_for(&format!("{shown} ends"), || child.0.try_wait().unwrap());
        writer.join().unwrap();
        Self { code: status.code(), out: out.join().unwrap(), err: err.join().unwrap() }
    }

    /// The same, if it ended with `code`.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Its one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    /// Its JSON values, one a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

fn read_all(mut from: impl io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

/// A process that does not outlive its test.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Reaped {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and returns its exit code and how long that took.
    #[track_caller]
    pub fn end(&mut self) -> (Option<i32>, Duration) {
        let begun = clock::instant();
        let status = wait_for("the process ends", || self.0.try_wait().unwrap());
        (status.code(), begun.elapsed())
    }
}

/// An address of this machine that nobody else uses: of the loopback network a random host, so that no program that
/// asks the system for a port of 127.0.0.1 can be given it in between.
pub fn address() -> SocketAddr {
    let [a, b, c] = clock::random::<3>();
    let host = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
    let listener = TcpListener::bind((host, 0)).or_else(|_one_address_only| TcpListener::bind("127.0.0.1:0"));
    listener.unwrap().local_addr().unwrap()
}

/// A company with its data directory.
pub struct Company {
    pub name: String,
    pub data: PathBuf,
    pub address: SocketAddr,
    log: PathBuf,
    node: Option<Reaped>,
}

impl Company {
    pub fn new(folder: &Path, name: &str) -> Self {
        let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
        Self { name: name.to_owned(), data, address: address(), log, node: None }
    }

    /// Runs a command here.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        Ran::of(program().arg("--data").arg(&self.data).args(arguments), stdin)
    }

    /// Runs a command here that must work.
    #[track_caller]
    pub fn does(&self, arguments: &[&str]) -> Ran {
        self.run(arguments).ends_with(0)
    }

    /// Makes keys and request.
    #[track_caller]
    pub fn init(&self, to: &[&str], group: &str, jurisdiction: &str) -> PathBuf {
        let request = self.data.with_extension("sdj");
        let at = self.address.to_string();
        let mut arguments = vec!["init", "--name", &self.name, "--group", group, "--jurisdiction", jurisdiction];
        arguments.extend(["--endpoint", &at, "--out", request.to_str().unwrap()]);
        arguments.extend(to);
        let ran = self.does(&arguments);
        let told = format!("{}{}", ran.out, ran.err);
        let words = told.split_whitespace().find(|text| text.split('-').filter(|word| word.len() > 2).count() == 8);
        assert!(words.is_some(), "eight key words are told: {told}");
        fs::write(
            self.data.join("staydown.toml"),
            format!("[peer]\nlisten = \"{at}\"\n[web]\nlisten = \"127.0.0.1:0\"\n"),
        )
        .unwrap();
        request
    }

    /// Starts the node: `run`, or `join` with its arguments.
    pub fn start(&mut self, arguments: &[&str]) {
        self.start_with(arguments, &[]);
    }

    /// The same with variables of the environment.
    pub fn start_with(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = program()
            .arg("--data")
            .arg(&self.data)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.node = Some(Reaped(child));
    }

    /// Waits for the end of the node, and returns its exit code.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        self.node.take().unwrap().end().0
    }

    /// What the node has written to its stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the node answers, has `peers` connections, and signs.
    #[track_caller]
    pub fn ready(&self, peers: u64) {
        wait_for(&format!("{} is ready: {}", self.name, self.log()), || {
            let ran = self.run(&["status", "--json"]);
            let status: Value = serde_json::from_str(&ran.out).ok()?;
            let is_ready = status["peers_connected"].as_u64()? >= peers && status["guard_pending"] == false;
            is_ready.then_some(())
        });
    }

    /// Stops the node in order.
    #[track_caller]
    pub fn stop(&mut self) -> Duration {
        let mut node = self.node.take().unwrap();
        node.signal("TERM");
        let (code, took) = node.end();
        assert_eq!(code, Some(0), "{}", self.log());
        took
    }

    /// Sends the node a signal.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.node.as_ref().unwrap().signal(name);
    }

    pub fn kill(&mut self) {
        self.node = None;
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.does(&["status", "--json"]).json()
    }
}

/// A forum that was founded by commands.
pub struct Forum {
    pub folder: TempDir,
    pub fingerprint: String,
    pub companies: Vec<Company>,
}

impl Forum {
    /// The first `count` companies found a forum, each with a founder key and fresh keys.
    pub fn found(count: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let founders = COMPANIES[..count].iter().map(|(name, ..)| {
            let key = folder.path().join(format!("founder-{name}.pem"));
            run(&["charter", "key", key.to_str().unwrap(), "--no-passphrase"]).ends_with(0);
            key
        });
        let founders: Vec<_> = founders.collect();
        Self::of(folder, &founders)
    }

    /// The three companies and founders of `certs-example/`.
    pub fn example() -> Self {
        let folder = TempDir::new().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example");
        for (name, ..) in COMPANIES {
            let keys = folder.path().join(name).join("keys");
            fs::create_dir_all(&keys).unwrap();
            for file in fs::read_dir(example.join(name)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), keys.join(file.file_name())).unwrap();
            }
        }
        let founders = [1, 2, 3].map(|number| example.join(format!("founder-{number}.pem")));
        Self::of(folder, &founders)
    }

    fn of(folder: TempDir, founders: &[PathBuf]) -> Self {
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (draft, invitation) = (at("draft.sdc"), at("invite.sdi"));
        let count = founders.len();
        let threshold = count.min(2);
        let mut arguments: Vec<String> =
            // The lowest level: each test raises it to what it needs.
            ["charter", "found", "--name", "Example Forum", "--semantics", "1", "--founder"].map(Into::into).to_vec();
        arguments.extend(founders.iter().map(|key| public_half(&folder, key)));
        arguments.extend(["--threshold".to_owned(), threshold.to_string(), "--out".to_owned(), draft.clone()]);
        run_owned(&arguments).ends_with(0);

        let mut companies = Vec::new();
        let mut admit = vec!["charter".to_owned(), "admit".to_owned()];
        for (name, group, jurisdiction) in &COMPANIES[..count] {
            let company = Company::new(folder.path(), name);
            let request = company.init(&["--founding", &draft], group, jurisdiction);
            admit.push(request.to_str().unwrap().to_owned());
            companies.push(company);
        }
        admit.extend(["--role", "FULL", "--into", &draft].map(Into::into));
        run_owned(&admit).ends_with(0);
        for key in founders.iter().take(threshold) {
            run(&["charter", "sign", &draft, "--key", key.to_str().unwrap()]).ends_with(0);
        }
        let charter = run(&["charter", "show", &draft, "--json"]).ends_with(0).json();
        assert_eq!(charter["members"].as_array().unwrap().len(), count);
        assert_eq!(charter["missing"].as_array().unwrap().len(), 0);
        let told = run(&["charter", "invite", "--from", &draft, "--out", &invitation]).ends_with(0);
        let fingerprint = charter["forum_id"].as_str().unwrap().to_owned();
        assert_eq!(told.out.trim_end(), fingerprint, "{told:?}");
        Self { folder, fingerprint, companies }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// All join, and stay up.
    #[track_caller]
    pub fn join(&mut self) {
        let (invitation, fingerprint) = (self.path("invite.sdi"), self.fingerprint.clone());
        for company in &mut self.companies {
            company.start(&["join", &invitation, "--forum", &fingerprint]);
        }
        self.ready();
    }

    #[track_caller]
    pub fn ready(&self) {
        for company in &self.companies {
            company.ready(self.companies.len() as u64 - 1);
        }
    }

    /// Waits until all show the same view, and returns its hour and digest.
    #[track_caller]
    pub fn agree(&self) -> (Value, Value) {
        wait_for("all show the same view", || {
            let views = self.companies.iter().map(|company| {
                let status = company.status();
                (status["view_hour_ms"].clone(), status["view_digest"].clone(), status["records"].clone())
            });
            let views: Vec<(Value, Value, Value)> = views.collect();
            views.iter().all(|view| *view == views[0]).then(|| (views[0].0.clone(), views[0].1.clone()))
        })
    }
}

/// The public half of a founder's key. Those of `certs-example/` have none beside them, so it is made from the key.
fn public_half(folder: &TempDir, key: &Path) -> String {
    let beside = format!("{}.pub", key.display());
    if Path::new(&beside).exists() {
        return beside;
    }
    let loaded = staydown::keys::load_founder_with(key, staydown::keys::Permissions::Lenient).unwrap();
    let path = folder.path().join(key.file_name().unwrap()).with_extension("pub");
    fs::write(&path, staydown::wire::files::founder_file(&loaded.verifying_key())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a command that needs no node.
pub fn run(arguments: &[&str]) -> Ran {
    Ran::of(program().args(arguments), b"")
}

fn run_owned(arguments: &[String]) -> Ran {
    Ran::of(program().args(arguments), b"")
}

/// Writes a drawn poster as PNG, and an altered copy of it as JPEG. Returns both paths.
pub fn poster(folder: &Path, seed: u32) -> (String, String) {
    let drawn = hashing::drawn::poster(seed, 720, 540);
    let (png, copy) = (folder.join(format!("poster-{seed}.png")), folder.join(format!("copy-{seed}.jpg")));
    fs::write(&png, hashing::drawn::png_bytes(&drawn).unwrap()).unwrap();
    fs::write(&copy, hashing::drawn::altered_copy(&drawn).unwrap()).unwrap();
    (png.to_str().unwrap().to_owned(), copy.to_str().unwrap().to_owned())
}

/// A SHA-256 value that stands for `n`.
pub fn hash(n: u64) -> String {
    staydown::replica::ids::hex(&staydown::replica::ids::sha256(&[b"example", &n.to_be_bytes()]))
}
