//! The key files of a node: plain PEM in one directory, mode 0600, written whole or not at all.
//!
//! | file | holds |
//! | --- | --- |
//! | `log-root.pem` | the Ed25519 key that opens this member's logs (PKCS#8) |
//! | `log-seed` | 32 bytes in hex, from which the keys of single logs are derived |
//! | `tls.key.pem` | the ECDSA P-256 key the node shows to its peers (PKCS#8); the charter pins it |
//! | `tls.cert.pem` | a certificate of that key; renewed under the same key, so that the pin stays |
//! | `seal-key` | 32 bytes in hex: the X25519 key that the forum's peppers are sealed to (PROTOCOL section 10) |
//!
//! Who can read these files can speak for the member, therefore a secret that others on the machine may read is refused.
//!
//! A key that is to follow stands beside the one in use until the charter names it: `tls.next.key.pem` with
//! `tls.next.cert.pem`, `log-root.next.pem`, and `seal-key.next`. A founder's key is no part of a node and is encrypted (`sealed.rs`).
//!
//! Under systemd, `log-root.pem`, `log-seed`, `tls.key.pem` and `seal-key` in `$CREDENTIALS_DIRECTORY` win over the
//! folder; they are only read.

mod sealed;
pub mod words;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::accounts::SealSecret;
use crate::clock;
use crate::replica::charter::SealKey;
use crate::replica::ids::{KeyId, Pin, TimeMs, hex, sha256};

pub use self::sealed::{
    PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN, PBKDF2_ROUNDS_MAX, Passphrase, SCRYPT, SCRYPT_BYTES_MAX,
    SCRYPT_LANES_MAX, create_sealed_founder, load_sealed_founder,
};

/// File of the log root key.
pub const LOG_ROOT_FILE: &str = "log-root.pem";
/// File of the log root key that is to follow, until the charter lists it.
pub const LOG_ROOT_NEXT_FILE: &str = "log-root.next.pem";
/// File of the log root key before the one in use: a charter that is forked away may name it again.
pub const LOG_ROOT_OLD_FILE: &str = "log-root.old.pem";
/// Name of the keys' folder in the data directory.
pub const KEYS_FOLDER: &str = "keys";
/// File of the seed of the log keys.
pub const LOG_SEED_FILE: &str = "log-seed";
/// File of the TLS key.
pub const TLS_KEY_FILE: &str = "tls.key.pem";
/// File of the TLS certificate.
pub const TLS_CERT_FILE: &str = "tls.cert.pem";
/// File of the TLS key that is to follow, until the charter lists it.
pub const TLS_NEXT_KEY_FILE: &str = "tls.next.key.pem";
/// File of its certificate.
pub const TLS_NEXT_CERT_FILE: &str = "tls.next.cert.pem";
/// File of the seal key. Nodes that are older than level 3 have none until they are told to make one.
pub const SEAL_KEY_FILE: &str = "seal-key";
/// File of the seal key that is to follow; copies under either open until the one after it is made.
pub const SEAL_KEY_NEXT_FILE: &str = "seal-key.next";

/// Bytes of a key or certificate file at most: the longest honest one, a chain of four certificates, has about 8 KiB.
pub const KEY_FILE_SIZE_MAX: u64 = 64 * 1024;
/// Certificates in `tls.cert.pem` at most: a leaf, two intermediates and a root.
pub const CHAIN_LEN_MAX: usize = 4;
/// Life of a certificate that the node makes for itself. Short, because renewing is free: the pin stays.
pub const CERTIFICATE_LIFE_MS: u64 = 90 * TimeMs::DAY_MS;
/// The node renews when less than this is left: before the first alarm, which is given 30 days before the end.
pub const RENEW_BEFORE_MS: u64 = 45 * TimeMs::DAY_MS;
/// A new certificate begins this long before now, for peers whose clock is behind.
pub const BACKDATE_MS: u64 = TimeMs::HOUR_MS;
/// The DNS name in every certificate. Nobody resolves or trusts it (the pin decides), but other TLS stacks want one.
pub const PLACEHOLDER_NAME: &str = "staydown.invalid";

/// X.509 cannot write a year of five digits: 9999-12-31T23:59:59Z, in seconds.
const X509_TIME_MAX_S: u64 = 253_402_300_799;

/// Pins of the TLS keys in `certs-example/` (acme, bolt, cyan). Their private keys are public.
pub const EXAMPLE_PINS: [Pin; 3] = [
    Pin(unhex(b"53204d4ebd939be7ce0bbed018e7e65e082c26e514a43ea5cda3135aa9862581")), // acme
    Pin(unhex(b"21d8e74507025f910e8ddcd098b4f44a52625f8b8c8b6758e7e2e0c52bfcc8bd")), // bolt
    Pin(unhex(b"3936fc96c42603fa3af299ab8aa252a0960cd1b2a7ab4c4262ffe44f5303349c")), // cyan
];

/// Ids of the founder keys in `certs-example/`. Their private keys are public.
pub const EXAMPLE_FOUNDERS: [KeyId; 3] = [
    KeyId(unhex(b"7ec2172cf83c52dbc9dec687a6988ae6005d09a9f9494163bd3def3f5d66576c")), // founder-1
    KeyId(unhex(b"afa57ea1e25cd6259852fa3674fcba4e4c062f0a648c00c0e4f06fb28fdc5211")), // founder-2
    KeyId(unhex(b"64133c9e4c3a46eb489923198752f95a03e2add27030a902abf599cbd53d59e7")), // founder-3
];

/// What a node signs and shows itself with.
pub struct NodeKeys {
    /// Opens this member's logs; its public half and proof of possession are in the charter.
    pub root: SigningKey,
    /// The keys of the single logs are derived from this.
    pub log_seed: Zeroizing<[u8; 32]>,
    /// Key and certificate towards peers.
    pub tls: TlsIdentity,
    /// Opens the peppers that are sealed to this member; absent on nodes that never made one.
    pub seal: Option<SealSecret>,
}

/// How strictly the mode of key files is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Secrets that the group or others may read are refused.
    Strict,
    /// Any mode, but only keys of `certs-example/`: git does not keep mode 0600, and there is nothing to protect.
    Lenient,
}

/// Loads strictly, and overlooks the mode of files only if what `load` then finds are published example keys.
///
/// # Errors
/// What strict loading said.
pub fn strict_unless_example<T>(load: impl Fn(Permissions) -> Result<T, KeyError>) -> Result<T, KeyError> {
    match load(Permissions::Strict) {
        Err(readable @ KeyError::Readable { .. }) => load(Permissions::Lenient).map_err(|_not_example| readable),
        loaded => loaded,
    }
}

impl NodeKeys {
    /// Makes new keys in `dir`, which is created if need be. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if one of the files is there: a lost log key is a lost log. Nothing is changed then. After
    /// another error files that were already written stay.
    pub fn create(dir: &Path, terms: &CertificateTerms) -> Result<Self, KeyError> {
        for name in [LOG_ROOT_FILE, LOG_SEED_FILE, TLS_KEY_FILE, TLS_CERT_FILE, SEAL_KEY_FILE] {
            refuse_existing(&dir.join(name))?;
        }
        let seal = SealSecret::from_bytes(clock::random());
        let keys = Self {
            root: new_signing_key(),
            log_seed: Zeroizing::new(clock::random()),
            tls: TlsIdentity::create(terms)?,
            seal: Some(seal.clone()),
        };
        create_dir(dir)?;
        write_whole(&dir.join(LOG_ROOT_FILE), signing_key_pem(&keys.root)?.as_bytes())?;
        write_whole(&dir.join(LOG_SEED_FILE), seed_text(&keys.log_seed).as_bytes())?;
        write_whole(&dir.join(TLS_KEY_FILE), keys.tls.key_pem()?.as_bytes())?;
        write_whole(&dir.join(TLS_CERT_FILE), keys.tls.certificate_pem().as_bytes())?;
        write_whole(&dir.join(SEAL_KEY_FILE), seed_text(seal.as_bytes()).as_bytes())?;
        Ok(keys)
    }

    /// Reads the keys in `dir`.
    ///
    /// # Errors
    /// A file is missing, readable by others, malformed, or the certificate is not one of the TLS key.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        Self::load_with(dir, Permissions::Strict)
    }

    /// Reads the keys in `dir`, with a choice about file modes.
    ///
    /// # Errors
    /// As [`NodeKeys::load`]; and [`KeyError::NotAnExample`] for lenient reading of keys that are not in
    /// [`EXAMPLE_PINS`].
    pub fn load_with(dir: &Path, permissions: Permissions) -> Result<Self, KeyError> {
        let tls = TlsIdentity::load(dir, permissions)?;
        let credentials = credentials_directory();
        let secret = |name: &str| secret_file(dir, name, credentials.as_deref());
        Ok(Self {
            root: read_signing_key(&secret(LOG_ROOT_FILE), permissions)?,
            log_seed: read_seed(&secret(LOG_SEED_FILE), permissions)?,
            tls,
            seal: read_seal(&secret(SEAL_KEY_FILE), permissions)?,
        })
    }
}

/// The folder in which systemd hands credentials to this process, if it does.
pub fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// Whether this node's secret of this name comes from systemd's credentials, where only an administrator changes it.
pub fn is_credential(name: &str) -> bool {
    credentials_directory().is_some_and(|dir| dir.join(name).exists())
}

/// The secret file `name`: the credential of this name if there is one, else the file in the keys folder.
fn secret_file(dir: &Path, name: &str, credentials: Option<&Path>) -> PathBuf {
    let credential = credentials.map(|credentials| credentials.join(name)).filter(|path| path.exists());
    credential.unwrap_or_else(|| dir.join(name))
}

/// Makes the log root key that is to follow, beside the one in use. One that waits already is kept and returned.
///
/// # Errors
/// It cannot be read or written.
pub fn next_root(dir: &Path) -> Result<SigningKey, KeyError> {
    if is_credential(LOG_ROOT_FILE) {
        return Err(KeyError::Credential { name: LOG_ROOT_FILE });
    }
    let path = dir.join(LOG_ROOT_NEXT_FILE);
    if path.exists() {
        let waits = read_signing_key(&path, Permissions::Strict)?;
        // A crash while it was taken into use has left it in both places.
        if waits != read_signing_key(&dir.join(LOG_ROOT_FILE), Permissions::Strict)? {
            return Ok(waits);
        }
    }
    let key = new_signing_key();
    write_whole(&path, signing_key_pem(&key)?.as_bytes())?;
    Ok(key)
}

/// The log root key that the charter names, when it is not the one in use: the one that was to follow, which is in use
/// from now on, or the one before, after a charter was undone. `None`: this node has no key that the charter names.
/// The caller holds the lock of the data directory.
///
/// # Errors
/// A file cannot be read or written; the key in use is the same as before then.
pub fn adopt_root(dir: &Path, listed: &VerifyingKey) -> Result<Option<SigningKey>, KeyError> {
    if is_credential(LOG_ROOT_FILE) {
        return Ok(None);
    }
    let in_use = dir.join(LOG_ROOT_FILE);
    for name in [LOG_ROOT_NEXT_FILE, LOG_ROOT_OLD_FILE] {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let key = read_signing_key(&path, Permissions::Strict)?;
        if key.verifying_key() != *listed {
            continue;
        }
        // First the copies, then the one change that counts: a crash in between loses no key.
        let kept = if name == LOG_ROOT_OLD_FILE { LOG_ROOT_NEXT_FILE } else { LOG_ROOT_OLD_FILE };
        write_whole(&dir.join(kept), &read_secret(&in_use, Permissions::Strict)?)?;
        write_whole(&in_use, signing_key_pem(&key)?.as_bytes())?;
        fs::remove_file(&path).map_err(KeyError::io(&path))?;
        return Ok(Some(key));
    }
    Ok(None)
}

/// The seal keys of this node: the one in use, and the one that is to follow. Either may be missing.
///
/// # Errors
/// A file is there and cannot be read.
pub fn seal_secrets(dir: &Path) -> Result<Vec<SealSecret>, KeyError> {
    let in_use = secret_file(dir, SEAL_KEY_FILE, credentials_directory().as_deref());
    let paths = [in_use, dir.join(SEAL_KEY_NEXT_FILE)];
    let secrets = paths.iter().map(|path| strict_unless_example(|permissions| read_seal(path, permissions)));
    Ok(secrets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The seal key of this node, made if it has none yet.
///
/// # Errors
/// It cannot be read or written.
pub fn seal_key(dir: &Path) -> Result<SealSecret, KeyError> {
    let path = secret_file(dir, SEAL_KEY_FILE, credentials_directory().as_deref());
    match strict_unless_example(|permissions| read_seal(&path, permissions))? {
        Some(secret) => Ok(secret),
        None => new_seal(&dir.join(SEAL_KEY_FILE)),
    }
}

/// Makes the seal key that is to follow. One that waits already is kept and returned, unless it is the one that the
/// charter `listed`: that one is in use then, and the key before it is gone.
///
/// # Errors
/// [`KeyError::Credential`] if the key in use comes from systemd; it cannot be read or written.
pub fn next_seal(dir: &Path, listed: Option<&SealKey>) -> Result<SealSecret, KeyError> {
    if is_credential(SEAL_KEY_FILE) {
        return Err(KeyError::Credential { name: SEAL_KEY_FILE });
    }
    let (path, in_use) = (dir.join(SEAL_KEY_NEXT_FILE), dir.join(SEAL_KEY_FILE));
    if let Some(waits) = read_seal(&path, Permissions::Strict)? {
        if waits.public().as_ref() != listed {
            return Ok(waits);
        }
        fs::rename(&path, &in_use).map_err(KeyError::io(&in_use))?;
    }
    new_seal(&path)
}

fn new_seal(path: &Path) -> Result<SealSecret, KeyError> {
    let secret = SealSecret::from_bytes(clock::random());
    write_whole(path, seed_text(secret.as_bytes()).as_bytes())?;
    Ok(secret)
}

fn read_seal(path: &Path, permissions: Permissions) -> Result<Option<SealSecret>, KeyError> {
    match read_seed(path, permissions) {
        Ok(bytes) => Ok(Some(SealSecret::from_bytes(*bytes))),
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new seed for the keys of single logs, in the place of the old one, whose logs must be closed by then.
///
/// # Errors
/// [`KeyError::Credential`] if it comes from systemd; [`KeyError::Io`], and the old seed is whole then.
pub fn write_log_seed(dir: &Path, seed: &[u8; 32]) -> Result<(), KeyError> {
    if is_credential(LOG_SEED_FILE) {
        return Err(KeyError::Credential { name: LOG_SEED_FILE });
    }
    write_whole(&dir.join(LOG_SEED_FILE), seed_text(seed).as_bytes())
}

fn seed_text(seed: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", *Zeroizing::new(hex(seed))))
}

/// What a self-signed certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateTerms {
    /// The member's name (common name). For people; nothing decides by it.
    pub name: String,
    /// `staydown://<forum>/<member>/<node>`, for forums that ask for one.
    pub uri: Option<String>,
    /// First valid moment; the certificate keeps whole seconds.
    pub not_before: TimeMs,
    /// Last valid moment; the certificate keeps whole seconds.
    pub not_after: TimeMs,
}

impl CertificateTerms {
    /// The usual terms: from an hour before `now`, for [`CERTIFICATE_LIFE_MS`].
    pub fn usual(name: &str, now: TimeMs) -> Self {
        Self {
            name: name.to_owned(),
            uri: None,
            not_before: TimeMs(now.0.saturating_sub(BACKDATE_MS)),
            not_after: now.plus(CERTIFICATE_LIFE_MS),
        }
    }
}

/// A TLS key (ECDSA P-256: other gRPC stacks refuse Ed25519 here) and a certificate chain of it.
pub struct TlsIdentity {
    key: Zeroizing<Vec<u8>>,
    chain: Vec<CertificateDer<'static>>,
    facts: CertificateFacts,
}

impl TlsIdentity {
    /// A new key and a self-signed certificate. The key's randomness is that of the TLS library.
    ///
    /// # Errors
    /// [`KeyError::Terms`] if the terms cannot stand in a certificate.
    pub fn create(terms: &CertificateTerms) -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(KeyError::terms)?;
        Self::self_signed(&pair, terms)
    }

    /// A new certificate for the same key: the pin does not change, so no charter is needed.
    ///
    /// # Errors
    /// [`KeyError::Terms`] if the terms cannot stand in a certificate.
    pub fn renew(&self, terms: &CertificateTerms) -> Result<Self, KeyError> {
        Self::self_signed(&pair_of(&self.key)?, terms)
    }

    /// Renews, and replaces the certificate file in `dir` at once.
    ///
    /// # Errors
    /// As [`TlsIdentity::renew`], or the file cannot be written; the old file is whole then.
    pub fn renew_in(&self, dir: &Path, terms: &CertificateTerms) -> Result<Self, KeyError> {
        let renewed = self.renew(terms)?;
        write_whole(&dir.join(TLS_CERT_FILE), renewed.certificate_pem().as_bytes())?;
        Ok(renewed)
    }

    /// A new certificate for the key in `dir`, whatever is the matter with the old one, which it replaces at once.
    ///
    /// # Errors
    /// The key cannot be read, or the certificate cannot be written.
    pub fn certify_in(dir: &Path, terms: &CertificateTerms, permissions: Permissions) -> Result<Self, KeyError> {
        let path = secret_file(dir, TLS_KEY_FILE, credentials_directory().as_deref());
        let pem = read_secret(&path, permissions)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map_err(|error| KeyError::malformed(&path, format!("not a PKCS#8 private key in PEM: {error}")))?;
        let made = Self::self_signed(&pair_of(key.secret_pkcs8_der())?, terms)?;
        if permissions == Permissions::Lenient && !EXAMPLE_PINS.contains(&made.pin()) {
            return Err(KeyError::NotAnExample { path, name: made.pin().to_string() });
        }
        write_whole(&dir.join(TLS_CERT_FILE), made.certificate_pem().as_bytes())?;
        Ok(made)
    }

    /// Makes the key that is to follow, with its certificate, beside the one in use.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if one waits already; [`KeyError::Credential`] if the one in use comes from systemd.
    pub fn create_next(dir: &Path, terms: &CertificateTerms) -> Result<Self, KeyError> {
        if is_credential(TLS_KEY_FILE) {
            return Err(KeyError::Credential { name: TLS_KEY_FILE });
        }
        refuse_existing(&dir.join(TLS_NEXT_KEY_FILE))?;
        let next = Self::create(terms)?;
        // The certificate last: a key without one is not the next yet.
        write_whole(&dir.join(TLS_NEXT_KEY_FILE), next.key_pem()?.as_bytes())?;
        write_whole(&dir.join(TLS_NEXT_CERT_FILE), next.certificate_pem().as_bytes())?;
        Ok(next)
    }

    /// Reads key and certificate in `dir`: at start, and again when the files have changed.
    ///
    /// # Errors
    /// As [`NodeKeys::load_with`].
    pub fn load(dir: &Path, permissions: Permissions) -> Result<Self, KeyError> {
        Self::load_files(dir, TLS_KEY_FILE, TLS_CERT_FILE, permissions)
    }

    /// Reads the key and certificate in `dir` that are to follow, if there are both.
    ///
    /// # Errors
    /// As [`NodeKeys::load_with`].
    pub fn load_next(dir: &Path, permissions: Permissions) -> Result<Option<Self>, KeyError> {
        // One alone is a key that is being made, or that is being put in place: not yet, or not any more, the next.
        if !dir.join(TLS_NEXT_KEY_FILE).exists() || !dir.join(TLS_NEXT_CERT_FILE).exists() {
            return Ok(None);
        }
        Self::load_files(dir, TLS_NEXT_KEY_FILE, TLS_NEXT_CERT_FILE, permissions).map(Some)
    }

    /// Puts the key and certificate that are to follow in the place of those in use. The old key is gone then.
    ///
    /// # Errors
    /// [`KeyError::Io`]; if only the key was moved, [`TlsIdentity::finish_change`] completes it.
    pub fn adopt_next(dir: &Path) -> Result<(), KeyError> {
        let rename =
            |from: &str, to: &str| fs::rename(dir.join(from), dir.join(to)).map_err(KeyError::io(&dir.join(to)));
        rename(TLS_NEXT_KEY_FILE, TLS_KEY_FILE)?;
        rename(TLS_NEXT_CERT_FILE, TLS_CERT_FILE)
    }

    /// Completes a change of the key that was cut off between its two files: at start, before they are read.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub fn finish_change(dir: &Path) -> Result<(), KeyError> {
        let (next_key, next_cert) = (dir.join(TLS_NEXT_KEY_FILE), dir.join(TLS_NEXT_CERT_FILE));
        let cut_off = next_cert.exists() && !next_key.exists() && {
            strict_unless_example(|permissions| Self::load_files(dir, TLS_KEY_FILE, TLS_NEXT_CERT_FILE, permissions))
                .is_ok()
        };
        if cut_off {
            fs::rename(&next_cert, dir.join(TLS_CERT_FILE)).map_err(KeyError::io(&next_cert))?;
        }
        Ok(())
    }

    fn load_files(dir: &Path, key: &str, cert: &str, permissions: Permissions) -> Result<Self, KeyError> {
        let key_path = secret_file(dir, key, credentials_directory().as_deref());
        let cert_path = dir.join(cert);
        let key_pem = read_secret(&key_path, permissions)?;
        let cert_pem = read_bounded(&cert_path)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&key_pem)
            .map_err(|error| KeyError::malformed(&key_path, format!("not a PKCS#8 private key in PEM: {error}")))?;
        let chain = CertificateDer::pem_slice_iter(&cert_pem)
            .take(CHAIN_LEN_MAX + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| KeyError::malformed(&cert_path, error))?;
        let identity = Self::from_parts(key.secret_pkcs8_der().to_vec().into(), chain)
            .map_err(|error| KeyError::malformed(&cert_path, error))?;
        if permissions == Permissions::Lenient && !EXAMPLE_PINS.contains(&identity.pin()) {
            return Err(KeyError::NotAnExample { path: dir.to_owned(), name: identity.pin().to_string() });
        }
        Ok(identity)
    }

    /// SHA-256 of the key's `SubjectPublicKeyInfo`: what the charter lists.
    pub fn pin(&self) -> Pin {
        self.facts.pin
    }

    /// Pin and validity of the certificate.
    pub fn facts(&self) -> CertificateFacts {
        self.facts
    }

    /// True when it is time to renew: less than [`RENEW_BEFORE_MS`] is left.
    pub fn renewal_due(&self, now: TimeMs) -> bool {
        now.plus(RENEW_BEFORE_MS) > self.facts.not_after
    }

    /// The certificate, and those above it if there are any, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// A copy of the private key for the TLS library.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }

    fn self_signed(pair: &KeyPair, terms: &CertificateTerms) -> Result<Self, KeyError> {
        let certificate = parameters(terms)?.self_signed(pair).map_err(KeyError::terms)?;
        Self::from_parts(pair.serialize_der().into(), vec![certificate.der().clone()])
    }

    fn from_parts(key: Zeroizing<Vec<u8>>, chain: Vec<CertificateDer<'static>>) -> Result<Self, KeyError> {
        let leaf = match chain.as_slice() {
            [] => return Err(KeyError::Certificate("there is no certificate in it".to_owned())),
            [leaf, above @ ..] if above.len() < CHAIN_LEN_MAX => leaf,
            _ => return Err(KeyError::Certificate(format!("more than {CHAIN_LEN_MAX} certificates"))),
        };
        let facts = CertificateFacts::of(leaf)?;
        let own = Pin(sha256(&[&rcgen::PublicKeyData::subject_public_key_info(&pair_of(&key)?)]));
        if facts.pin != own {
            return Err(KeyError::NotThisKey { certificate: facts.pin, key: own });
        }
        Ok(Self { key, chain, facts })
    }

    fn key_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pair_of(&self.key)?.serialize_pem()))
    }

    fn certificate_pem(&self) -> String {
        self.chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// What the forum looks at in a certificate: whose key, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub pin: Pin,
    /// First valid moment.
    pub not_before: TimeMs,
    /// Last valid moment (the last millisecond of the certificate's last second).
    pub not_after: TimeMs,
}

impl CertificateFacts {
    /// Reads them from DER. Checks no signature: the pin decides, and TLS proves possession of the key.
    ///
    /// # Errors
    /// [`KeyError::Certificate`] if `der` is not one X.509 certificate and nothing else.
    pub fn of(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| KeyError::Certificate(format!("not X.509: {error}")))?;
        if !rest.is_empty() {
            return Err(KeyError::Certificate(format!("{} bytes after the certificate", rest.len())));
        }
        // Before 1970 is before everything; TimeMs has no such moments, and needs none.
        let ms = |timestamp: i64| TimeMs(u64::try_from(timestamp).unwrap_or(0).saturating_mul(1_000));
        let validity = certificate.validity();
        Ok(Self {
            pin: Pin(sha256(&[certificate.public_key().raw])),
            not_before: ms(validity.not_before.timestamp()),
            not_after: ms(validity.not_after.timestamp()).plus(999),
        })
    }
}

/// The pin of a certificate in DER.
///
/// # Errors
/// [`KeyError::Certificate`] if `der` is not one X.509 certificate.
pub fn pin_of_cert_der(der: &[u8]) -> Result<Pin, KeyError> {
    CertificateFacts::of(der).map(|facts| facts.pin)
}

/// The last valid moment of a certificate in DER, in Unix milliseconds.
///
/// # Errors
/// [`KeyError::Certificate`] if `der` is not one X.509 certificate.
pub fn not_after_ms(der: &[u8]) -> Result<TimeMs, KeyError> {
    CertificateFacts::of(der).map(|facts| facts.not_after)
}

/// Makes a founder key in the file `path`, not encrypted.
///
/// # Errors
/// [`KeyError::Exists`] if there is a file already; [`KeyError::Io`] if it cannot be written.
pub fn create_founder(path: &Path) -> Result<SigningKey, KeyError> {
    refuse_existing(path)?;
    let key = new_signing_key();
    parent_made(path)?;
    write_whole(path, signing_key_pem(&key)?.as_bytes())?;
    Ok(key)
}

/// Reads the founder key in the file `path`.
///
/// # Errors
/// [`KeyError::Sealed`] if it is encrypted; the file is missing, readable by others, or malformed.
pub fn load_founder(path: &Path) -> Result<SigningKey, KeyError> {
    load_founder_with(path, Permissions::Strict)
}

/// Reads the founder key in the file `path`, with a choice about its mode.
///
/// # Errors
/// As [`load_founder`]; and [`KeyError::NotAnExample`] for lenient reading of a key not in [`EXAMPLE_FOUNDERS`].
pub fn load_founder_with(path: &Path, permissions: Permissions) -> Result<SigningKey, KeyError> {
    // Before the mode: a sealed key may lie on a stick whose file system knows no owners.
    if sealed::is_sealed(&String::from_utf8_lossy(&read_bounded(path)?)) {
        return Err(KeyError::Sealed { path: path.to_owned() });
    }
    let key = read_signing_key(path, permissions)?;
    let id = KeyId::of(key.verifying_key().as_bytes());
    if permissions == Permissions::Lenient && !EXAMPLE_FOUNDERS.contains(&id) {
        return Err(KeyError::NotAnExample { path: path.to_owned(), name: id.to_string() });
    }
    Ok(key)
}

/// Refuses the keys of `certs-example/` wherever others could reach them: everybody has their private halves, so
/// whoever can connect could also pose as this node.
///
/// # Errors
/// [`KeyError::ExampleKey`] if `pin` is an example and `listen_address` is not loopback.
pub fn refuse_example_keys(pin: Pin, listen_address: SocketAddr) -> Result<(), KeyError> {
    if EXAMPLE_PINS.contains(&pin) && !listen_address.ip().to_canonical().is_loopback() {
        return Err(KeyError::ExampleKey { address: listen_address });
    }
    Ok(())
}

/// What can be wrong with keys and their files. No variant, and no message, carries secret bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written; what was there is whole.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is a key where one was to be made; it was not touched.
    #[error("{} is already there and keys are never overwritten; choose another directory or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A secret that more than its owner can read.
    #[error("{} may be read by others (mode {mode:04o}, expected 0600); fix: chmod 600 {}", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is longer than any key.
    #[error("{} has more than {KEY_FILE_SIZE_MAX} bytes: not a key file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that are not a certificate.
    #[error("malformed certificate: {0}")]
    Certificate(String),
    /// Key and certificate do not belong together.
    #[error("the certificate is for key {certificate}, but {TLS_KEY_FILE} is key {key}; renew it: staydown cert renew")]
    NotThisKey {
        /// Pin of the certificate.
        certificate: Pin,
        /// Pin of the key.
        key: Pin,
    },
    /// A certificate with these terms cannot be made.
    #[error("cannot make a certificate: {0}")]
    Terms(String),
    /// Lenient reading is for the published examples only.
    #[error("{}: file modes are overlooked only for the keys of certs-example, and {name} is none of them", path.display())]
    NotAnExample {
        /// File or directory.
        path: PathBuf,
        /// Pin or key id found.
        name: String,
    },
    /// A secret that systemd hands to this process.
    #[error(
        "{name} comes from systemd's credentials and cannot be changed from here; fix: put the new one where LoadCredential= takes it from, and restart the service"
    )]
    Credential {
        /// Name of the file.
        name: &'static str,
    },
    /// A passphrase that cannot be used.
    #[error("the passphrase cannot be used: {0}")]
    Passphrase(String),
    /// An encrypted key, without its passphrase.
    #[error("{} is encrypted; fix: give its passphrase (--passphrase-file FILE, or type it when asked)", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key, with another passphrase than it was sealed with.
    #[error("{} does not open with this passphrase", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// An example key on an address that others can reach.
    #[error(
        "the TLS key comes from certs-example and its private half is public: anyone could pose as this node on {address}; \
         listen on 127.0.0.1, or make keys of your own: staydown init"
    )]
    ExampleKey {
        /// Where the node wanted to listen.
        address: SocketAddr,
    },
}

impl KeyError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    fn malformed(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }

    fn terms(reason: impl fmt::Display) -> Self {
        Self::Terms(reason.to_string())
    }
}

fn new_signing_key() -> SigningKey {
    SigningKey::from_bytes(&Zeroizing::new(clock::random()))
}

fn signing_key_pem(key: &SigningKey) -> Result<Zeroizing<String>, KeyError> {
    key.to_pkcs8_pem(LineEnding::LF).map_err(KeyError::terms)
}

fn read_signing_key(path: &Path, permissions: Permissions) -> Result<SigningKey, KeyError> {
    let pem = read_secret(path, permissions)?;
    let text = std::str::from_utf8(&pem).map_err(|error| KeyError::malformed(path, error))?;
    SigningKey::from_pkcs8_pem(text)
        .map_err(|error| KeyError::malformed(path, format!("not an Ed25519 key in PKCS#8 PEM: {error}")))
}

fn read_seed(path: &Path, permissions: Permissions) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text = read_secret(path, permissions)?;
    let bytes = Zeroizing::new(data_encoding::HEXLOWER.decode(text.trim_ascii_end()).unwrap_or_default());
    <[u8; 32]>::try_from(bytes.as_slice())
        .map(Zeroizing::new)
        .map_err(|_wrong_length| KeyError::malformed(path, "expected 64 lowercase hexadecimal digits"))
}

fn pair_of(pkcs8: &[u8]) -> Result<KeyPair, KeyError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| KeyError::Certificate(format!("{TLS_KEY_FILE} is not an ECDSA P-256 key: {error}")))
}

fn parameters(terms: &CertificateTerms) -> Result<CertificateParams, KeyError> {
    let mut parameters = CertificateParams::new([PLACEHOLDER_NAME.to_owned()]).map_err(KeyError::terms)?;
    if terms.not_before > terms.not_after || terms.not_after.0 / 1_000 > X509_TIME_MAX_S {
        return Err(KeyError::Terms(format!("valid from {} ms to {} ms", terms.not_before.0, terms.not_after.0)));
    }
    let moment = |time: TimeMs| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.0 / 1_000);
    parameters.not_before = moment(terms.not_before);
    parameters.not_after = moment(terms.not_after);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, terms.name.as_str());
    if let Some(uri) = &terms.uri {
        parameters.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(KeyError::terms)?));
    }
    // Left alone, the library would derive it from the key, and a renewed certificate would have its predecessor's.
    // The first byte keeps it positive and of full length.
    let mut serial = clock::random::<16>();
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

fn pem_block(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

fn refuse_existing(path: &Path) -> Result<(), KeyError> {
    // Not `exists()`: a dangling link counts, and an error is not a "no".
    match fs::symlink_metadata(path) {
        Ok(_) => Err(KeyError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(KeyError::io(path)(error)),
    }
}

fn read_secret(path: &Path, permissions: Permissions) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(KeyError::io(path))?;
    // The mode of the file that is open, not of whatever has the name a moment later.
    let mode = file.metadata().map_err(KeyError::io(path))?.permissions().mode() & 0o7777;
    // Systemd shows an access list for the service's user as the group's bits.
    let is_credential = credentials_directory().is_some_and(|dir| path.parent() == Some(&dir));
    let others = if is_credential { 0o007 } else { 0o077 };
    if permissions == Permissions::Strict && mode & others != 0 {
        return Err(KeyError::Readable { path: path.to_owned(), mode });
    }
    read_open(&file, path)
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    read_open(&File::open(path).map_err(KeyError::io(path))?, path)
}

fn read_open(file: &File, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Room enough at once: a vector that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let read = file.take(KEY_FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(KeyError::io(path))?;
    if read as u64 > KEY_FILE_SIZE_MAX {
        return Err(KeyError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

fn parent_made(path: &Path) -> Result<(), KeyError> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => create_dir(dir),
        None => Ok(()),
    }
}

fn create_dir(dir: &Path) -> Result<(), KeyError> {
    fs::create_dir_all(dir).map_err(KeyError::io(dir))
}

/// Replaces `path` by `bytes` at once: after a crash there is the old file or the new one, never half of one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    write_temporary(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory_of(path))?.sync_all())
        .map_err(KeyError::io(path))
}

fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// 64 hexadecimal digits as bytes, while compiling.
const fn unhex(digits: &[u8; 64]) -> [u8; 32] {
    const fn nibble(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("not a lowercase hexadecimal digit"),
        }
    }
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = nibble(digits[2 * at]) << 4 | nibble(digits[2 * at + 1]);
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);
    /// 2099-12-31T23:59:59Z.
    const END_OF_CENTURY: TimeMs = TimeMs(4_102_444_799_000);

    fn terms() -> CertificateTerms {
        CertificateTerms::usual("acme", NOW)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn examples() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example")
    }

    #[test]
    fn created_keys_are_loaded_again_and_only_their_owner_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let keys_dir = dir.path().join("keys");
        let made = NodeKeys::create(&keys_dir, &terms()).unwrap();
        let read = NodeKeys::load(&keys_dir).unwrap();
        assert_eq!(read.root.to_bytes(), made.root.to_bytes());
        assert_eq!(read.log_seed, made.log_seed);
        assert_eq!(read.tls.facts(), made.tls.facts());
        assert_eq!(read.seal.unwrap().public(), made.seal.unwrap().public());
        assert_eq!(names(&keys_dir), [LOG_ROOT_FILE, LOG_SEED_FILE, SEAL_KEY_FILE, TLS_CERT_FILE, TLS_KEY_FILE]);
        for name in names(&keys_dir) {
            assert_eq!(mode(&keys_dir.join(&name)), 0o600, "{name}");
        }
    }

    #[test]
    fn no_key_file_is_ever_overwritten() {
        for present in [LOG_ROOT_FILE, LOG_SEED_FILE, TLS_KEY_FILE, TLS_CERT_FILE, SEAL_KEY_FILE] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(present), "precious").unwrap();
            assert!(matches!(NodeKeys::create(dir.path(), &terms()), Err(KeyError::Exists { .. })), "{present}");
            assert_eq!(names(dir.path()), [present]);
            assert_eq!(fs::read(dir.path().join(present)).unwrap(), b"precious");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("founder.pem");
        let founder = create_founder(&path).unwrap();
        assert!(matches!(create_founder(&path), Err(KeyError::Exists { .. })));
        assert_eq!(load_founder(&path).unwrap().to_bytes(), founder.to_bytes());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        NodeKeys::create(dir.path(), &terms()).unwrap();
        for name in [LOG_ROOT_FILE, LOG_SEED_FILE, TLS_KEY_FILE, SEAL_KEY_FILE] {
            for loose in [0o640, 0o604, 0o620] {
                let path = dir.path().join(name);
                chmod(&path, loose);
                let message = NodeKeys::load(dir.path()).err().unwrap().to_string();
                let path_text = path.display();
                assert_eq!(
                    message,
                    format!(
                        "{path_text} may be read by others (mode {loose:04o}, expected 0600); fix: chmod 600 {path_text}"
                    )
                );
                chmod(&path, 0o600);
            }
        }
        chmod(&dir.path().join(TLS_CERT_FILE), 0o644);
        NodeKeys::load(dir.path()).unwrap();
    }

    #[test]
    fn a_credential_wins_over_the_folder() {
        let (folder, credentials) = (Path::new("/keys"), tempfile::tempdir().unwrap());
        let path = |credentials: Option<&Path>| secret_file(folder, LOG_SEED_FILE, credentials);
        assert_eq!(path(None), Path::new("/keys/log-seed"));
        assert_eq!(path(Some(credentials.path())), Path::new("/keys/log-seed"), "there is none of this name");
        fs::write(credentials.path().join(LOG_SEED_FILE), "x").unwrap();
        assert_eq!(path(Some(credentials.path())), credentials.path().join(LOG_SEED_FILE));
    }

    #[test]
    fn the_log_root_key_is_the_one_that_the_charter_names() {
        let dir = tempfile::tempdir().unwrap();
        let first = NodeKeys::create(dir.path(), &terms()).unwrap().root;
        let second = next_root(dir.path()).unwrap();
        assert_eq!(next_root(dir.path()).unwrap().to_bytes(), second.to_bytes(), "one that waits is kept");
        let in_use = || NodeKeys::load(dir.path()).unwrap().root.to_bytes();
        assert_eq!(in_use(), first.to_bytes(), "until the charter names it");
        assert!(adopt_root(dir.path(), &new_signing_key().verifying_key()).unwrap().is_none());
        assert_eq!(in_use(), first.to_bytes());
        let adopted = adopt_root(dir.path(), &second.verifying_key()).unwrap().unwrap();
        assert_eq!((adopted.to_bytes(), in_use()), (second.to_bytes(), second.to_bytes()));
        assert!(!dir.path().join(LOG_ROOT_NEXT_FILE).exists());
        // A charter fork leads back to the version before.
        adopt_root(dir.path(), &first.verifying_key()).unwrap().unwrap();
        assert_eq!(in_use(), first.to_bytes());
        assert_eq!(mode(&dir.path().join(LOG_ROOT_NEXT_FILE)), 0o600);
        adopt_root(dir.path(), &second.verifying_key()).unwrap().unwrap();
        assert_eq!(in_use(), second.to_bytes());
    }

    #[test]
    fn a_next_tls_key_stands_beside_the_one_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let before = NodeKeys::create(dir.path(), &terms()).unwrap();
        assert!(TlsIdentity::load_next(dir.path(), Permissions::Strict).unwrap().is_none());
        let next = TlsIdentity::create_next(dir.path(), &terms()).unwrap();
        assert!(matches!(TlsIdentity::create_next(dir.path(), &terms()), Err(KeyError::Exists { .. })));
        let read = TlsIdentity::load_next(dir.path(), Permissions::Strict).unwrap().unwrap();
        assert_eq!((read.pin(), mode(&dir.path().join(TLS_NEXT_KEY_FILE))), (next.pin(), 0o600));
        assert_eq!(NodeKeys::load(dir.path()).unwrap().tls.pin(), before.tls.pin());
        write_log_seed(dir.path(), &[7; 32]).unwrap();
        assert_eq!(*NodeKeys::load(dir.path()).unwrap().log_seed, [7; 32]);
    }

    #[test]
    fn a_seal_key_is_made_once_and_the_next_one_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(seal_secrets(dir.path()).unwrap().is_empty());
        let first = seal_key(dir.path()).unwrap();
        let public = |secret: &SealSecret| secret.public().unwrap();
        assert_eq!(public(&seal_key(dir.path()).unwrap()), public(&first));
        let second = next_seal(dir.path(), Some(&public(&first))).unwrap();
        assert_eq!(
            public(&next_seal(dir.path(), Some(&public(&first))).unwrap()),
            public(&second),
            "one waits already"
        );
        let held = || seal_secrets(dir.path()).unwrap().iter().map(public).collect::<Vec<_>>();
        assert_eq!(held(), [public(&first), public(&second)]);
        // The charter lists the second by now.
        let third = next_seal(dir.path(), Some(&public(&second))).unwrap();
        assert_eq!(held(), [public(&second), public(&third)]);
        assert_eq!(mode(&dir.path().join(SEAL_KEY_FILE)), 0o600);
        fs::write(dir.path().join(SEAL_KEY_NEXT_FILE), "ab").unwrap();
        assert!(seal_secrets(dir.path()).unwrap_err().to_string().contains("64 lowercase hexadecimal digits"));
    }

    #[test]
    fn lenient_reading_is_for_the_examples_only() {
        let dir = tempfile::tempdir().unwrap();
        NodeKeys::create(dir.path(), &terms()).unwrap();
        let refused = NodeKeys::load_with(dir.path(), Permissions::Lenient);
        assert!(matches!(refused, Err(KeyError::NotAnExample { .. })));
        let founder = dir.path().join("founder.pem");
        create_founder(&founder).unwrap();
        assert!(matches!(load_founder_with(&founder, Permissions::Lenient), Err(KeyError::NotAnExample { .. })));
    }

    #[test]
    fn damaged_files_are_named_and_nothing_secret_is_shown() {
        let too_long = vec![b'a'; 64 * 1024 + 1];
        for (name, bytes, expected) in [
            (LOG_ROOT_FILE, &b"not a key"[..], "not an Ed25519 key in PKCS#8 PEM"),
            (LOG_SEED_FILE, b"abcd", "expected 64 lowercase hexadecimal digits"),
            (TLS_KEY_FILE, b"", "not a PKCS#8 private key in PEM"),
            (TLS_CERT_FILE, b"", "there is no certificate in it"),
            (LOG_SEED_FILE, &too_long, "has more than 65536 bytes"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            NodeKeys::create(dir.path(), &terms()).unwrap();
            fs::write(dir.path().join(name), bytes).unwrap();
            let message = NodeKeys::load(dir.path()).err().unwrap().to_string();
            assert!(message.contains(name) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        NodeKeys::create(dir.path(), &terms()).unwrap();
        NodeKeys::create(other.path(), &terms()).unwrap();
        fs::copy(other.path().join(TLS_CERT_FILE), dir.path().join(TLS_CERT_FILE)).unwrap();
        let message = NodeKeys::load(dir.path()).err().unwrap().to_string();
        assert!(message.contains("the certificate is for key"), "{message}");
    }

    #[test]
    fn a_chain_has_four_certificates_at_most() {
        for (count, fits) in [(4, true), (5, false)] {
            let dir = tempfile::tempdir().unwrap();
            let keys = NodeKeys::create(dir.path(), &terms()).unwrap();
            fs::write(dir.path().join(TLS_CERT_FILE), keys.tls.certificate_pem().repeat(count)).unwrap();
            match NodeKeys::load(dir.path()) {
                Ok(keys) => assert!(fits && keys.tls.chain().len() == count),
                Err(error) => assert!(!fits && error.to_string().contains("more than 4 certificates"), "{error}"),
            }
        }
    }

    #[test]
    fn renewing_keeps_the_pin_and_moves_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let keys = NodeKeys::create(dir.path(), &terms()).unwrap();
        assert!(!keys.tls.renewal_due(NOW));
        let later = NOW.plus(CERTIFICATE_LIFE_MS - RENEW_BEFORE_MS + 1_000);
        assert!(keys.tls.renewal_due(later));
        let renewed = keys.tls.renew_in(dir.path(), &CertificateTerms::usual("acme", later)).unwrap();
        assert_eq!(renewed.pin(), keys.tls.pin());
        let serial =
            |identity: &TlsIdentity| X509Certificate::from_der(&identity.chain()[0]).unwrap().1.raw_serial().to_vec();
        assert_ne!(serial(&renewed), serial(&keys.tls));
        assert_eq!(renewed.facts().not_after.0 / 1_000, later.plus(CERTIFICATE_LIFE_MS).0 / 1_000);
        assert_eq!(NodeKeys::load(dir.path()).unwrap().tls.facts(), renewed.facts());
        assert!(!dir.path().join("tls.cert.pem.new").exists());
    }

    #[test]
    fn a_certificate_says_what_its_terms_say() {
        let terms = CertificateTerms { uri: Some("staydown://f/acme/1".to_owned()), ..terms() };
        let identity = TlsIdentity::create(&terms).unwrap();
        let der = &identity.chain()[0];
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=acme");
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names: Vec<_> = names.value.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(names, [format!("DNSName({PLACEHOLDER_NAME})"), "URI(staydown://f/acme/1)".to_owned()]);
        assert_eq!(pin_of_cert_der(der).unwrap(), identity.pin());
        assert_eq!(not_after_ms(der).unwrap().0 / 1_000, terms.not_after.0 / 1_000);
        assert_eq!(identity.facts().not_before.0 / 1_000, terms.not_before.0 / 1_000);
    }

    #[test]
    fn terms_that_no_certificate_can_hold_are_refused() {
        let backwards = CertificateTerms { not_before: NOW, not_after: TimeMs(0), ..terms() };
        let beyond = CertificateTerms { not_after: TimeMs(u64::MAX), ..terms() };
        let uri = CertificateTerms { uri: Some("staydown://é".to_owned()), ..terms() };
        for terms in [backwards, beyond, uri] {
            assert!(matches!(TlsIdentity::create(&terms), Err(KeyError::Terms(_))), "{terms:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_certificate_are_refused() {
        let identity = TlsIdentity::create(&terms()).unwrap();
        let mut trailing = identity.chain()[0].to_vec();
        trailing.push(0);
        for der in [&b""[..], b"\x30\x00", &trailing[..40], &trailing] {
            assert!(matches!(pin_of_cert_der(der), Err(KeyError::Certificate(_))));
        }
    }

    #[test]
    fn the_examples_are_those_that_the_constants_name_and_last_until_2099() {
        for (name, pin) in ["acme", "bolt", "cyan"].into_iter().zip(EXAMPLE_PINS) {
            let keys = NodeKeys::load_with(&examples().join(name), Permissions::Lenient).unwrap();
            assert_eq!(keys.tls.pin(), pin, "{name}");
            assert_eq!(keys.tls.facts().not_after.0 / 1_000, END_OF_CENTURY.0 / 1_000);
        }
        for (number, id) in (1..).zip(EXAMPLE_FOUNDERS) {
            let path = examples().join(format!("founder-{number}.pem"));
            let key = load_founder_with(&path, Permissions::Lenient).unwrap();
            assert_eq!(KeyId::of(key.verifying_key().as_bytes()), id);
        }
    }

    #[test]
    fn example_keys_stay_on_loopback() {
        let own = TlsIdentity::create(&terms()).unwrap().pin();
        for (address, loopback) in [
            ("127.0.0.1:7700", true),
            ("127.8.0.1:7700", true),
            ("[::1]:7700", true),
            ("[::ffff:127.0.0.1]:7700", true),
            ("0.0.0.0:7700", false),
            ("[::]:7700", false),
            ("192.0.2.1:7700", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(refuse_example_keys(EXAMPLE_PINS[1], address).is_ok(), loopback, "{address}");
            refuse_example_keys(own, address).unwrap();
        }
        let message = refuse_example_keys(EXAMPLE_PINS[0], "192.0.2.1:7700".parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains("certs-example") && message.contains("192.0.2.1:7700"), "{message}");
    }

    /// Makes `certs-example/` anew and shows the constants to copy into this file. Run it only when it must be.
    #[test]
    #[ignore = "replaces the published example keys"]
    fn regenerate_certs_example() {
        for name in ["acme", "bolt", "cyan"] {
            let dir = examples().join(name);
            if dir.exists() {
                fs::remove_dir_all(&dir).unwrap();
            }
            let terms = CertificateTerms {
                not_before: TimeMs(1_767_225_600_000), // 2026-01-01
                not_after: END_OF_CENTURY,
                ..CertificateTerms::usual(name, NOW)
            };
            let keys = NodeKeys::create(&dir, &terms).unwrap();
            println!("    Pin(unhex(b\"{}\")), // {name}", keys.tls.pin());
        }
        for number in 1..=3 {
            let path = examples().join(format!("founder-{number}.pem"));
            if path.exists() {
                fs::remove_file(&path).unwrap();
            }
            let key = create_founder(&path).unwrap();
            println!("    KeyId(unhex(b\"{}\")), // founder-{number}", KeyId::of(key.verifying_key().as_bytes()));
        }
    }
}
