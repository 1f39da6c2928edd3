//! A forum whose nodes serve their own people, and the Python that asks them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::world::{Company, Forum, Ran, wait_for};

/// What the scripts import; all of it is there, or none is used.
const PACKAGES: &str =
    "import openapi_spec_validator, openapi_python_client, schemathesis, grpc, grpc_reflection, google.protobuf";

/// The Python that has the packages; none: the test is skipped, which it says.
#[expect(clippy::print_stderr, reason = "whoever runs the tests learns what was not tested")]
pub fn python() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let python = std::env::var_os("STAYDOWN_PYTHON").map_or(ours, PathBuf::from);
    // It is called from other folders.
    let python = std::path::absolute(python).unwrap();
    let has_all = Command::new(&python).args(["-c", PACKAGES]).output().is_ok_and(|output| output.status.success());
    if has_all {
        return Some(python);
    }
    let missing = format!("{} does not have the packages of .ci/run", python.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// A script of this folder.
pub fn script(name: &str) -> String {
    format!("{}/tests/contract/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A command of the virtual environment of `python`. Nothing that it writes stays.
pub fn tool(python: &Path, name: &str, scratch: &Path) -> Command {
    let mut command = Command::new(python.with_file_name(name));
    command.current_dir(scratch).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command.env("HOME", scratch).env("PATH", path_with(python));
    command
}

/// What the tools call by name stands beside them.
fn path_with(python: &Path) -> std::ffi::OsString {
    let mut path = python.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Runs it to its end, which must be a good one.
#[track_caller]
pub fn done(command: &mut Command) -> Ran {
    Ran::of(command, b"").ends_with(0)
}

/// The document, as the program prints it.
pub fn document() -> String {
    crate::world::run(&["openapi"]).ends_with(0).out
}

/// A forum of `count` companies that are there, each of which serves its own people as `settings` say.
pub fn forum(count: usize, settings: &str) -> Forum {
    let mut forum = Forum::found(count);
    for company in &forum.companies {
        let path = company.data.join("staydown.toml");
        let text = fs::read_to_string(&path).unwrap();
        // Its last section is that of the web listener.
        fs::write(&path, format!("{text}{settings}")).unwrap();
    }
    forum.join();
    forum
}

/// Where a company serves its own people.
pub fn address(company: &Company) -> SocketAddr {
    let file = company.data.join("web.addr");
    wait_for("the node tells its address", || fs::read_to_string(&file).ok()?.trim().parse().ok())
}

/// A token of this company.
pub fn token(company: &Company, name: &str, of: &[&str]) -> String {
    let mut arguments = vec!["token", "new", "--name", name, "--json"];
    arguments.extend(of);
    let made = company.does(&arguments).json();
    let secret = |made: &Value| made["secret"].as_str().or_else(|| made["token"].as_str()).map(ToOwned::to_owned);
    secret(&made).unwrap_or_else(|| panic!("{made}"))
}

/// Runs something that takes minutes to its end, however it ends.
pub fn long(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
