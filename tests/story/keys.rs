//! The life of keys, with the built program: founders' keys under a passphrase, and the keys of a node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::world::{Forum, Ran, program, run};

fn cause(ran: &Ran) -> String {
    ran.json()["error"]["cause"].as_str().unwrap().to_owned()
}

fn secret_file(forum: &Forum, name: &str, text: &str) -> String {
    let path = forum.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_founder_key_is_encrypted_and_signs_without_a_node() {
    let forum = Forum::found(1);
    let (key, draft) = (forum.path("founder-zeta.pem"), forum.path("draft-2.sdc"));
    let right = secret_file(&forum, "right", "gravel otter canoe\n");
    let wrong = secret_file(&forum, "wrong", "gravel otter canoes\n");
    let short = secret_file(&forum, "short", "otter\n");

    // Nobody types in a test, and no passphrase is an argument.
    let told = run(&["charter", "key", &key, "--json"]).ends_with(2);
    assert!(told.json()["error"]["fix"].as_str().unwrap().contains("--passphrase-file"), "{told:?}");
    let told = run(&["charter", "key", &key, "--passphrase-file", &short, "--json"]).ends_with(2);
    assert!(cause(&told).contains("it has 5 bytes, expected 12 or more"), "{told:?}");
    run(&["charter", "key", &key, "--passphrase-file", &right, "--no-passphrase"]).ends_with(2);
    assert!(!std::path::Path::new(&key).exists());

    run(&["charter", "key", &key, "--passphrase-file", &right]).ends_with(0);
    assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    run(&["charter", "key", &key, "--passphrase-file", &right]).ends_with(4);
    let plain = run(&["charter", "key", &forum.path("plain.pem"), "--no-passphrase"]).ends_with(0);
    assert!(plain.err.contains("warning: the secret key is not encrypted"), "{plain:?}");

    let public = format!("{key}.pub");
    let found = ["charter", "found", "--name", "Zeta", "--founder", &public, "--threshold", "1", "--out", &draft];
    run(&found).ends_with(0);
    let mut zeta = crate::world::Company::new(forum.folder.path(), "zeta");
    let request = zeta.init(&["--founding", &draft], "Zeta", "FR");
    run(&["charter", "admit", request.to_str().unwrap(), "--role", "FULL", "--into", &draft]).ends_with(0);
    let sign = ["charter", "sign", &draft, "--key", &key];
    let told = run(&[&sign[..], &["--json"]].concat()).ends_with(2);
    assert!(cause(&told).contains("a passphrase is needed"), "{told:?}");
    let told = run(&[&sign[..], &["--passphrase-file", &wrong, "--json"]].concat()).ends_with(4);
    assert!(cause(&told).contains("founder-zeta.pem does not open with this passphrase"), "{told:?}");
    // By the environment, as scripts do.
    let signed = Ran::of(program().args(sign).env("STAYDOWN_PASSPHRASE_FILE", &right), b"").ends_with(0);
    assert!(signed.err.contains("Enough founders have signed"), "{signed:?}");
    zeta.kill();
}
