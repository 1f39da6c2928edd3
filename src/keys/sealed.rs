//! Founder keys at rest: PKCS#8 `EncryptedPrivateKeyInfo` in PEM, under a passphrase, as OpenSSL writes and reads it too.

use std::fmt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::{KeyError, Permissions, new_signing_key, parent_made, read_secret, refuse_existing, write_whole};
use crate::clock;

/// scrypt's cost as a power of two, block size and lanes. 16 MiB in five lanes take about a quarter of a second; more
/// memory at once OpenSSL would refuse to read back, and a founder must not need this program to save a key.
pub const SCRYPT: (u8, u32, u32) = (14, 8, 5);
/// Memory that a file may make us use for its scrypt, in bytes: sixteen times our own.
pub const SCRYPT_BYTES_MAX: u64 = 256 << 20;
/// Lanes of scrypt that are read: three times our own.
pub const SCRYPT_LANES_MAX: u16 = 16;
/// Rounds of PBKDF2 that are read: OpenSSL writes 2,048, careful people a million.
pub const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// Bytes of a new passphrase at least. The file is made to be carried about, so it can be guessed at for years.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// Bytes of a passphrase at most: a page of text.
pub const PASSPHRASE_BYTES_MAX: usize = 4_096;

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// What a founder key is encrypted with. Wiped from memory when dropped, shown nowhere.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase from what was typed or read. The end of the line is none of it.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`] if it is empty or longer than [`PASSPHRASE_BYTES_MAX`].
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        match bytes.len() {
            0 => Err(KeyError::Passphrase("it is empty".to_owned())),
            n if n > PASSPHRASE_BYTES_MAX => {
                Err(KeyError::Passphrase(format!("it has {n} bytes, at most {PASSPHRASE_BYTES_MAX} are taken")))
            }
            _ => Ok(Self(bytes)),
        }
    }

    /// Reads the first line of a file that nobody else may read.
    ///
    /// # Errors
    /// The file is missing, readable by others, too long, or its first line is empty.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let mut bytes = read_secret(path, Permissions::Strict)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes.truncate(end);
        }
        Self::new(bytes)
    }

    /// Whether it may be used for a new key.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`] if it has fewer than [`PASSPHRASE_BYTES_MIN`] bytes.
    pub fn check_new(&self) -> Result<(), KeyError> {
        match self.0.len() {
            n if n < PASSPHRASE_BYTES_MIN => {
                Err(KeyError::Passphrase(format!("it has {n} bytes, expected {PASSPHRASE_BYTES_MIN} or more")))
            }
            _ => Ok(()),
        }
    }
}

impl PartialEq for Passphrase {
    /// For "was the same typed twice?", by the one who typed both: no secret is guarded by the time this takes.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Makes a founder key in the file `path`, encrypted under `passphrase`.
///
/// # Errors
/// [`KeyError::Exists`] if there is a file already; [`KeyError::Passphrase`] if the passphrase is too short;
/// [`KeyError::Io`] if the file cannot be written.
pub fn create_sealed_founder(path: &Path, passphrase: &Passphrase) -> Result<SigningKey, KeyError> {
    passphrase.check_new()?;
    refuse_existing(path)?;
    let key = new_signing_key();
    let pem = seal(&key, passphrase)?;
    parent_made(path)?;
    write_whole(path, pem.as_bytes())?;
    Ok(key)
}

/// Reads the founder key in the file `path`, which is encrypted. Its mode does not matter: the passphrase protects it.
///
/// # Errors
/// [`KeyError::WrongPassphrase`]; the file is missing, malformed, or encrypted in a way that is not read.
pub fn load_sealed_founder(path: &Path, passphrase: &Passphrase) -> Result<SigningKey, KeyError> {
    let pem = read_secret(path, Permissions::Lenient)?;
    let text = std::str::from_utf8(&pem).map_err(|error| KeyError::malformed(path, error))?;
    open(path, text, passphrase)
}

/// Whether this PEM text is an encrypted key.
pub(super) fn is_sealed(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

fn seal(key: &SigningKey, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeyError> {
    let (log_n, r, p) = SCRYPT;
    let parameters = scrypt::Params::new(log_n, r, p).map_err(KeyError::terms)?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(parameters, &clock::random::<16>(), clock::random())
        .map_err(KeyError::terms)?;
    let plain = without_public_half(key)?;
    let plain = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(KeyError::terms)?;
    let sealed = plain.encrypt_with_params(parameters, &*passphrase.0).map_err(KeyError::terms)?;
    sealed.to_pem(LABEL, LineEnding::LF).map_err(KeyError::terms)
}

/// PKCS#8 of version 1: the second, which holds the public half too, OpenSSL does not read.
fn without_public_half(key: &SigningKey) -> Result<SecretDocument, KeyError> {
    KeypairBytes { secret_key: key.to_bytes(), public_key: None }.to_pkcs8_der().map_err(KeyError::terms)
}

fn open(path: &Path, pem: &str, passphrase: &Passphrase) -> Result<SigningKey, KeyError> {
    let malformed = |reason: String| KeyError::malformed(path, format!("not an encrypted key in PKCS#8 PEM: {reason}"));
    let (label, sealed) = SecretDocument::from_pem(pem).map_err(|error| malformed(error.to_string()))?;
    if label != LABEL {
        return Err(malformed(format!("found {label}, expected {LABEL}")));
    }
    let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|e| malformed(e.to_string()))?;
    affordable(&sealed).map_err(malformed)?;
    // Wrong padding and wrong content look alike from outside: under a wrong passphrase either can come out.
    let wrong = || KeyError::WrongPassphrase { path: path.to_owned() };
    let plain = sealed.decrypt(&*passphrase.0).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm { oid }) => {
            malformed(format!("algorithm {oid} is not read"))
        }
        _ => wrong(),
    })?;
    PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(|_not_a_key| wrong())?;
    SigningKey::from_pkcs8_der(plain.as_bytes())
        .map_err(|error| KeyError::malformed(path, format!("not an Ed25519 key in PKCS#8 PEM: {error}")))
}

/// A file says itself how much work it takes to open. Within bounds, it may.
fn affordable(sealed: &EncryptedPrivateKeyInfoRef<'_>) -> Result<(), String> {
    let kdf = sealed.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf);
    match kdf {
        Some(pbes2::Kdf::Scrypt(scrypt)) => {
            let bytes = scrypt.cost_parameter.saturating_mul(u64::from(scrypt.block_size)).saturating_mul(128);
            if bytes > SCRYPT_BYTES_MAX || scrypt.parallelization > SCRYPT_LANES_MAX {
                return Err(format!(
                    "its scrypt takes {bytes} bytes in {} lanes, at most {SCRYPT_BYTES_MAX} in {SCRYPT_LANES_MAX} are spent",
                    scrypt.parallelization
                ));
            }
            Ok(())
        }
        Some(pbes2::Kdf::Pbkdf2(pbkdf2)) if pbkdf2.iteration_count > PBKDF2_ROUNDS_MAX => {
            Err(format!("its PBKDF2 takes {} rounds, at most {PBKDF2_ROUNDS_MAX} are spent", pbkdf2.iteration_count))
        }
        Some(_) => Ok(()),
        None => Err("expected PBES2 (as from openssl genpkey -aes-256-cbc)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::super::load_founder;
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("founder.pem");
        let made = create_sealed_founder(&path, &passphrase("gravel otter canoe")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(is_sealed(&text), "{text}");
        let read = load_sealed_founder(&path, &passphrase("gravel otter canoe\n")).unwrap();
        assert_eq!(read.to_bytes(), made.to_bytes());
        for _ in 0..3 {
            let wrong = load_sealed_founder(&path, &passphrase("gravel otter canoes"));
            assert!(matches!(wrong, Err(KeyError::WrongPassphrase { .. })), "{wrong:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(load_founder(&path), Err(KeyError::Sealed { .. })), "whatever its mode");
        load_sealed_founder(&path, &passphrase("gravel otter canoe")).unwrap();
        let again = create_sealed_founder(&path, &passphrase("gravel otter canoe"));
        assert!(matches!(again, Err(KeyError::Exists { .. })));
    }

    #[test]
    fn the_file_says_how_it_was_sealed() {
        let pem = seal(&new_signing_key(), &passphrase("gravel otter canoe")).unwrap();
        let (_, sealed) = SecretDocument::from_pem(&pem).unwrap();
        let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).unwrap();
        let parameters = sealed.encryption_algorithm.pbes2().unwrap();
        let pbes2::Kdf::Scrypt(scrypt) = &parameters.kdf else { panic!("{parameters:?}") };
        let found = (scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization);
        assert_eq!(found, (1 << SCRYPT.0, 8, 5));
        assert!(matches!(parameters.encryption, pbes2::EncryptionScheme::Aes256Cbc { .. }));
    }

    #[test]
    fn a_file_cannot_make_us_work_without_end() {
        let key = new_signing_key();
        let plain = key.to_pkcs8_der().unwrap();
        let plain = PrivateKeyInfoRef::try_from(plain.as_bytes()).unwrap();
        let cheap = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1, &[1; 16], [2; 16]).unwrap();
        let sealed = plain.encrypt_with_params(cheap.clone(), b"gravel otter canoe").unwrap();
        let asks = |kdf: pbes2::Kdf| {
            let mut file = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).unwrap();
            file.encryption_algorithm = pbes2::Parameters { kdf, encryption: cheap.encryption }.into();
            affordable(&file).is_ok()
        };
        for (rounds, taken) in [(PBKDF2_ROUNDS_MAX, true), (PBKDF2_ROUNDS_MAX + 1, false)] {
            let kdf = pbes2::Pbkdf2Params::hmac_sha256(rounds, &[1; 16]).unwrap();
            assert_eq!(asks(kdf.into()), taken, "{rounds}");
        }
        for ((log_n, r, p), taken) in [(SCRYPT, true), ((18, 8, 16), true), ((19, 8, 1), false), ((14, 8, 17), false)] {
            let parameters = scrypt::Params::new(log_n, r, p).unwrap();
            let kdf = pbes2::ScryptParams::from_params_and_salt(parameters, &[1; 16]).unwrap();
            assert_eq!(asks(kdf.into()), taken, "{log_n} {r} {p}");
        }
    }

    #[test]
    fn passphrases_are_long_enough_and_end_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        write_whole(&path, b"gravel otter canoe\r\nnot this line\n").unwrap();
        assert_eq!(Passphrase::read(&path).unwrap(), passphrase("gravel otter canoe"));
        write_whole(&path, b"\n").unwrap();
        assert!(matches!(Passphrase::read(&path), Err(KeyError::Passphrase(_))));
        for (length, fits) in [(PASSPHRASE_BYTES_MIN - 1, false), (PASSPHRASE_BYTES_MIN, true)] {
            assert_eq!(passphrase(&"x".repeat(length)).check_new().is_ok(), fits);
        }
        for (length, fits) in [(PASSPHRASE_BYTES_MAX, true), (PASSPHRASE_BYTES_MAX + 1, false)] {
            assert_eq!(Passphrase::new(Zeroizing::new(vec![b'x'; length])).is_ok(), fits);
        }
        assert_eq!(format!("{:?}", passphrase("gravel otter canoe")), "Passphrase");
    }

    #[test]
    fn what_openssl_seals_is_opened_and_the_other_way_round() {
        let openssl = |arguments: &[&str]| {
            let status = Command::new("openssl").args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        if !openssl(&["version"]) {
            eprintln!("skipped: there is no openssl on this machine");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        write_whole(at("passphrase").as_ref(), b"gravel otter canoe\n").unwrap();
        let (pass, theirs) = (format!("file:{}", at("passphrase")), at("theirs.pem"));
        let made = ["genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", &pass, "-out", &theirs];
        if !openssl(&made) {
            eprintln!("skipped: the openssl on this machine makes no Ed25519 keys");
            return;
        }
        load_sealed_founder(theirs.as_ref(), &passphrase("gravel otter canoe")).unwrap();
        let wrong = load_sealed_founder(theirs.as_ref(), &passphrase("gravel otter"));
        assert!(matches!(wrong, Err(KeyError::WrongPassphrase { .. })));
        create_sealed_founder(at("ours.pem").as_ref(), &passphrase("gravel otter canoe")).unwrap();
        assert!(openssl(&["pkey", "-in", &at("ours.pem"), "-passin", &pass, "-noout"]), "openssl reads ours");
    }
}
