//! The life of keys, with the built program: founders' keys under a passphrase, and the keys of a node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::world::{Company, Forum, Ran, hash, program, run, wait_for};

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
    let mut zeta = Company::new(forum.folder.path(), "zeta");
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

#[test]
fn keys_are_shown_renewed_and_their_changes_asked_for() {
    let mut forum = Forum::found(1);
    let request = forum.path("key-change.sdj");
    let stranger = Company::new(forum.folder.path(), "stranger");
    stranger.run(&["key", "show"]).ends_with(4);
    stranger.run(&["cert", "show"]).ends_with(4);
    stranger.run(&["key", "rotate", "--tls", "--out", &request]).ends_with(4);
    forum.join();
    let acme = &forum.companies[0];

    let shown = acme.does(&["key", "show", "--json"]).json();
    assert_eq!((&shown["log_root_listed"], &shown["tls"]["listed"]), (&true.into(), &true.into()), "{shown}");
    let pin = shown["tls"]["pin"].as_str().unwrap();
    let renewed = acme.does(&["cert", "renew", "--json"]).json();
    assert_eq!(renewed["pin"], pin, "no charter is needed");
    assert!(renewed["not_after_ms"].as_u64() >= shown["tls"]["not_after_ms"].as_u64());
    assert!(acme.does(&["cert", "show"]).out.contains("days left"));
    // A certificate that was lost is made again.
    fs::remove_file(acme.data.join("keys/tls.cert.pem")).unwrap();
    acme.does(&["cert", "renew"]);

    // The next TLS key, asked for in a charter that lists both.
    let told = acme.does(&["key", "rotate", "--tls", "--out", &request]);
    assert_eq!(told.out.trim().split('-').count(), 8, "eight key words: {told:?}");
    let again = acme.does(&["key", "rotate", "--tls", "--out", &request]);
    assert!(again.err.contains("waits already"), "{again:?}");
    let shown = acme.does(&["key", "show", "--json"]).json();
    assert_eq!((&shown["tls"]["pin"], &shown["tls_next"]["listed"]), (&pin.into(), &false.into()));
    let (charter, next) = (forum.path("charter-2.sdc"), shown["tls_next"]["pin"].as_str().unwrap());
    acme.does(&["charter", "admit", &request, "--out", &charter]);
    run(&["charter", "sign", &charter, "--key", &forum.path("founder-acme.pem")]).ends_with(0);
    let listed = run(&["charter", "show", &charter, "--json"]).ends_with(0).json();
    assert_eq!(listed["members"][0]["pins"], serde_json::json!([pin, next]), "{listed}");
    assert_eq!(listed["members"][0]["roles"], serde_json::json!(["FULL"]), "and nothing else changes");

    // The next log root key, under the same member id.
    let told = acme.does(&["key", "rotate", "--root", "--out", &request]);
    assert!(told.err.contains("charter admit") && told.err.contains("--new-key"), "{told:?}");
    assert_eq!(acme.does(&["key", "show", "--json"]).json()["log_root_next"], true);
    acme.run(&["charter", "admit", &request, "--out", &forum.path("charter-3.sdc")]).ends_with(4);
    run(&["key", "rotate"]).ends_with(2);
}

#[test]
fn a_backup_of_a_running_node_comes_back_as_the_same_member() {
    let mut forum = Forum::found(3);
    forum.join();
    let (copy, bare) = (forum.path("copy"), forum.path("bare"));
    let (early, late) = (format!("sha256:{}", hash(1)), format!("sha256:{}", hash(2)));
    let mut acme = forum.companies.remove(0);
    acme.does(&["submit", &early, "--label", "symbol", "--wait-peers", "2"]);
    let told = acme.does(&["backup", &copy, "--keys", "--json"]).json();
    assert_eq!(told["forum_id"], forum.fingerprint);
    acme.does(&["backup", &bare]);
    acme.run(&["backup", &copy]).ends_with(4);
    assert!(!std::path::Path::new(&bare).join("keys").exists());
    // What is said after the copy is in no backup: the peers have it.
    acme.does(&["submit", &late, "--label", "symbol", "--wait-peers", "2"]);
    acme.run(&["restore", &copy]).ends_with(73);
    acme.stop();
    acme.run(&["restore", &copy]).ends_with(4);

    let mut again = Company::new(forum.folder.path(), "acme-again");
    let journal = std::path::Path::new(&bare).join("journal");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[1..]).unwrap();
    let told = again.run(&["restore", &bare, "--json"]).ends_with(6);
    assert!(cause(&told).contains("journal was changed after it was copied"), "{told:?}");
    again.run(&["restore", &forum.path("none")]).ends_with(65);
    again.does(&["restore", &copy]);
    assert!(again.data.join("restored").exists(), "marked, so that it asks its peers first");
    assert!(!again.data.join("replica").exists() && !again.data.join("place").exists());
    again.start(&["run"]);
    again.ready(2);
    wait_for("what was said after the backup is back", || (again.run(&["match", &late]).code == Some(0)).then_some(()));
    let third = format!("sha256:{}", hash(3));
    let told = again.does(&["submit", &third, "--label", "symbol", "--wait-peers", "2", "--json"]).json();
    assert_eq!(told["state"], "DURABLE", "{told}");
    forum.companies.insert(0, again);
    forum.agree();
    for company in &forum.companies {
        let status = company.status();
        assert_eq!(status["proofs"], 0, "nothing was signed twice: {status}");
        for item in [&early, &late, &third] {
            company.does(&["match", item]);
        }
    }
}

#[test]
fn secrets_from_systemd_win_over_the_folder_and_are_only_read() {
    let forum = Forum::found(1);
    let credentials = forum.folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let acme = &forum.companies[0];
    for name in ["log-root.pem", "log-seed", "tls.key.pem", "seal-key"] {
        fs::rename(acme.data.join("keys").join(name), credentials.join(name)).unwrap();
        // As systemd shows an access list for the service's user.
        fs::set_permissions(credentials.join(name), fs::Permissions::from_mode(0o440)).unwrap();
    }
    let ask = |arguments: &[&str]| {
        let mut command = program();
        command.env("CREDENTIALS_DIRECTORY", &credentials).arg("--data").arg(&acme.data);
        Ran::of(command.args(arguments), b"")
    };
    acme.run(&["key", "show"]).ends_with(74);
    let (file, fingerprint) = (forum.folder.path().join("invite.sdi"), &forum.fingerprint);
    ask(&["join", file.to_str().unwrap(), "--forum", fingerprint, "--once"]).ends_with(0);
    let shown = ask(&["key", "show", "--json"]).ends_with(0).json();
    assert_eq!((&shown["log_root_listed"], &shown["tls"]["listed"]), (&true.into(), &true.into()), "{shown}");
    assert_eq!(shown["seal_key_listed"], true, "{shown}");
    ask(&["cert", "renew"]).ends_with(0);
    for key in ["--log", "--tls", "--root", "--seal"] {
        let told = ask(&["key", "rotate", key, "--json"]).ends_with(4);
        assert!(cause(&told).contains("comes from systemd's credentials"), "{told:?}");
        assert!(told.json()["error"]["fix"].as_str().unwrap().contains("LoadCredential="), "{told:?}");
    }
    let others = credentials.join("log-seed");
    fs::set_permissions(&others, fs::Permissions::from_mode(0o444)).unwrap();
    ask(&["key", "show"]).ends_with(65);
}

#[test]
fn a_node_takes_up_the_log_root_key_that_the_charter_names() {
    let mut forum = Forum::found(1);
    forum.join();
    let (request, charter) = (forum.path("key-change.sdj"), forum.path("charter-2.sdc"));
    let before = forum.companies[0].does(&["key", "show", "--json"]).json();
    let said = format!("sha256:{}", hash(1));
    forum.companies[0].does(&["submit", &said, "--label", "symbol"]);
    forum.companies[0].does(&["key", "rotate", "--root", "--out", &request]);
    forum.companies[0].does(&["charter", "admit", &request, "--new-key", "-o", &charter]);
    run(&["charter", "sign", &charter, "--key", &forum.path("founder-acme.pem")]).ends_with(0);
    forum.companies[0].does(&["charter", "apply", &charter]);
    // The running node takes it up by itself, and a restart changes nothing about that.
    for again in [false, true] {
        if again {
            forum.companies[0].stop();
            forum.companies[0].start(&["run"]);
            forum.companies[0].ready(0);
        }
        wait_for("the new log root key", || {
            let shown = forum.companies[0].does(&["key", "show", "--json"]).json();
            let taken = shown["log_root_listed"] == true && shown["log_root_next"] == false;
            (taken && shown["log_root_key_id"] != before["log_root_key_id"]).then_some(())
        });
        forum.companies[0].does(&["match", &said]);
    }
    forum.companies[0].does(&["submit", &format!("sha256:{}", hash(2)), "--label", "symbol"]);
    assert!(forum.companies[0].data.join("keys/log-root.old.pem").exists());
}

#[test]
fn a_tls_key_is_changed_with_two_charters_and_no_restart() {
    let mut forum = Forum::found(2);
    forum.join();
    let request = forum.path("key-change.sdj");
    let acme = &forum.companies[0];
    let pins = |wanted: usize| {
        acme.does(&["key", "rotate", "--tls", "--out", &request]);
        let charter = forum.path(&format!("charter-{wanted}.sdc"));
        acme.does(&["charter", "admit", &request, "--out", &charter]);
        for founder in ["acme", "bolt"] {
            run(&["charter", "sign", &charter, "--key", &forum.path(&format!("founder-{founder}.pem"))]).ends_with(0);
        }
        acme.does(&["charter", "apply", &charter]);
    };
    let pin = || acme.does(&["key", "show", "--json"]).json()["tls"]["pin"].clone();
    let before = pin();
    pins(2);
    wait_for("the node shows the next key", || (pin() != before).then_some(()));
    pins(3);
    let member = acme.does(&["charter", "show", "--json"]).json()["members"].clone();
    let listed: Vec<_> = member.as_array().unwrap().iter().filter(|m| m["name"] == "acme").collect();
    assert_eq!(listed[0]["pins"], serde_json::json!([pin()]));
    forum.ready();
    forum.agree();
}
