//! gRPC from another language: over TLS, with a token, and with what reflection tells.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::tools::{address, done, forum, python, script, token, tool};

#[test]
fn python_asks_over_grpc_with_tls_a_token_and_reflection() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Another name than the node's: what is issued under its own name counts as signed by itself.
    authority.distinguished_name.push(DnType::CommonName, "an authority of this test");
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issuer = Issuer::from_params(&authority, &authority_key);
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(at("ca.pem"), authority_certificate.pem()).unwrap();
    fs::write(at("web.pem"), certificate.pem()).unwrap();
    fs::write(at("web.key"), key.serialize_pem()).unwrap();
    private(&at("web.key"));

    let settings = format!("certificate = {:?}\nkey = {:?}\n", at("web.pem"), at("web.key"));
    let forum = forum(1, &settings);
    let acme = &forum.companies[0];
    let token = token(acme, "grpc", &["--scope", "lookup,submit"]);
    let address = format!("localhost:{}", address(acme).port());
    let mut command = tool(&python, "python", folder.path());
    done(command.arg(script("forum_grpc.py")).arg(&address).arg(at("ca.pem")).arg(&token));
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
