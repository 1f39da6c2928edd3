//! A machine with a person at it: a shell that is given one example after the other, and keeps what they leave running.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use staydown::clock;

/// Longest wait for an example, or for what it must bring about. The machines that run this are small and busy.
const DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);
/// How many ports further a machine may lie than its page says.
const SHIFTS: u16 = 2_000;
/// Reads the names of examples, sources each, and says when it has ended. A command that fails ends the shell.
const DRIVER: &str = r#"
set -eE -o pipefail
__failed() { echo "(ended with $1: $2)"; }
trap '__failed "$?" "$BASH_COMMAND"' ERR
exec 9<&0 </dev/null
while IFS= read -r __example <&9; do
    . "$__example.sh" >"$__example.out" 2>&1
    : >"$__example.done"
done
"#;

/// One machine.
pub(crate) struct Machine {
    pub(crate) home: PathBuf,
    /// What its examples and their outputs are written to.
    notes: PathBuf,
    address: Ipv4Addr,
    shift: u16,
    child: Child,
    input: ChildStdin,
    count: usize,
}

impl Machine {
    /// `ports` are those that its page names.
    pub(crate) fn start(folder: &Path, name: &str, ports: &[u16]) -> Self {
        let (home, notes) = (folder.join(name), folder.join(format!("{name}.notes")));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&notes).unwrap();
        let (address, shift) = place(ports);
        let program = Path::new(env!("CARGO_BIN_EXE_staydown")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-c", DRIVER]).current_dir(&home).process_group(0);
        command.env_clear().env("PATH", path).env("HOME", &home).env("TMPDIR", &notes).env("LANG", "C.UTF-8");
        // What a setup may need from the repository.
        command.env("REPOSITORY", crate::root());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Self { home, notes, address, shift, child, input, count: 0 }
    }

    /// Its own address instead of 127.0.0.1, and the port that is free there instead of the one on the page.
    pub(crate) fn socket(&self, port: u16) -> String {
        format!("{}:{}", self.address, port + self.shift)
    }

    fn note(&self, ending: &str) -> PathBuf {
        self.notes.join(format!("{}.{ending}", self.count))
    }

    /// What the last example has written so far.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.note("out")).unwrap_or_default()).into_owned()
    }

    /// Runs an example to its end, which is `exit`; what it puts into the background goes on.
    ///
    /// # Errors
    /// It failed, with what it wrote.
    pub(crate) fn run(&mut self, text: &str, exit: u8) -> Result<(), String> {
        self.count += 1;
        let text = match exit {
            0 => format!("{text}\n"),
            exit => format!(
                "set +eE; trap - ERR\n{text}\n__code=$?\ntrap '__failed \"$?\" \"$BASH_COMMAND\"' ERR; set -eE\n\
                 [ \"$__code\" -eq {exit} ] || {{ echo \"(ended with $__code, expected {exit})\"; exit 1; }}\n"
            ),
        };
        fs::write(self.note("sh"), text).unwrap();
        let told = writeln!(self.input, "{}", self.note("").with_extension("").display());
        let done = self.note("done");
        let begun = clock::instant();
        while !done.exists() {
            let ended = told.is_err() || self.child.try_wait().unwrap().is_some();
            if (ended && !done.exists()) || begun.elapsed() > DEADLINE {
                let how = if ended { "failed" } else { "did not end" };
                return Err(format!("{how}:\n{}", self.written()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until what the last example wrote, with what it left running, `fits`.
    ///
    /// # Errors
    /// It never did, with what was written.
    pub(crate) fn wait(&self, mut fits: impl FnMut(&str) -> bool) -> Result<(), String> {
        let in_background = fs::read_to_string(self.note("sh")).unwrap().lines().any(|line| line.ends_with('&'));
        let begun = clock::instant();
        loop {
            let written = self.written();
            if fits(&written) {
                return Ok(());
            }
            if !in_background || begun.elapsed() > DEADLINE {
                return Err(written);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The shell's group: the shell, and the nodes that it left running.
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.child.wait());
    }
}

/// An address of the loopback network, and how much to add to `ports` so that all of them are free there.
fn place(ports: &[u16]) -> (Ipv4Addr, u16) {
    let free =
        |address: Ipv4Addr, shift: u16| ports.iter().all(|port| TcpListener::bind((address, port + shift)).is_ok());
    for _ in 0..SHIFTS {
        let [a, b, c, high, low] = clock::random::<5>();
        // Another host of this network each time; where there is only one, another port.
        let own = Ipv4Addr::new(127, a, b, c.clamp(2, 254));
        let address = if TcpListener::bind((own, 0)).is_ok() { own } else { Ipv4Addr::LOCALHOST };
        let shift = 10 + u16::from_be_bytes([high, low]) % SHIFTS;
        if free(address, shift) {
            return (address, shift);
        }
    }
    panic!("no address of this machine has the ports {ports:?} free");
}
