//! The two secrets a node makes for itself at its first start: its identity and its API key.
//!
//! `identity.key` is a libp2p private key in protobuf form, 68 bytes for Ed25519:
//!
//! ```text
//! 08 01  type: Ed25519
//! 12 40  data, 64 bytes: the seed (32), the public key (32)
//! ```
//!
//! `api.key` is one line, `ak_<24 letters and digits>:default`. Both are readable by their owner only.
//! Neither is ever overwritten: losing the identity means to be another node, so a damaged file is an
//! error that a person must resolve. A file appears under its name complete and durable, or not at all.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use libp2p_identity::KeyType;
use libp2p_identity::Keypair;
use libp2p_identity::PeerId;

use crate::config::gateway::ApiKey;

/// The name of the identity in the data directory.
pub const IDENTITY_FILE: &str = "identity.key";
/// The name of the first API key in the data directory.
pub const API_KEY_FILE: &str = "api.key";

/// Bytes of an Ed25519 identity.
const IDENTITY_SIZE: usize = 68;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Who a node is.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
}

/// Why there is no identity or no key. The operator's move.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is there, but is not what its name says. It has not been touched.
    #[error("{} is corrupt ({what}); restore it, or move it away to let a new one be made", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It should have been written new, but there is one already. It has not been touched.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("cannot draw random bytes: {0}")]
    Random(getrandom::Error),
}

impl Identity {
    /// A new one, from the system's randomness. It exists nowhere else yet.
    pub fn generate() -> Self {
        Self { keypair: Keypair::generate_ed25519() }
    }

    /// The identity in `data_dir`, made at the first call.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, SecretError> {
        let path = data_dir.join(IDENTITY_FILE);
        match Self::load(&path) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match Self::generate().save(&path) {
                    // Somebody was faster; theirs counts.
                    Ok(()) | Err(SecretError::Exists(_)) => Self::load(&path),
                    Err(error) => Err(error),
                }
            }
            other => other,
        }
    }

    /// The identity in the file at `path`.
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let bytes = fs::read(path).map_err(refused("read", path))?;
        Self::from_bytes(&bytes)
            .map_err(|what| SecretError::Corrupt { path: path.to_owned(), what })
    }

    /// Write it to a new file at `path`, whose directory is created if need be.
    pub fn save(&self, path: &Path) -> Result<(), SecretError> {
        write_new(path, &self.to_bytes())
    }

    /// The 68 bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.keypair.to_protobuf_encoding().expect("an Ed25519 key has this form");
        assert_eq!(bytes.len(), IDENTITY_SIZE);
        bytes
    }

    /// The public name that follows from the key: `12D3KooW…`.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// The keys, to sign with.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != IDENTITY_SIZE {
            return Err(format!("{} bytes instead of {IDENTITY_SIZE}", bytes.len()));
        }
        let keypair = Keypair::from_protobuf_encoding(bytes).map_err(|error| error.to_string())?;
        if keypair.key_type() != KeyType::Ed25519 {
            return Err("not an Ed25519 key".to_owned());
        }
        Ok(Self { keypair })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer_id()).finish()
    }
}

/// The node's own API key in `data_dir`, made at the first call. It opens the namespace `default`.
pub fn load_or_create_api_key(data_dir: &Path) -> Result<ApiKey, SecretError> {
    let path = data_dir.join(API_KEY_FILE);
    match load_api_key(&path) {
        Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = new_api_key().map_err(SecretError::Random)?;
            match write_new(&path, format!("{key}\n").as_bytes()) {
                Ok(()) | Err(SecretError::Exists(_)) => load_api_key(&path),
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

fn load_api_key(path: &Path) -> Result<ApiKey, SecretError> {
    let corrupt =
        |what: &str| SecretError::Corrupt { path: path.to_owned(), what: what.to_owned() };
    let bytes = fs::read(path).map_err(refused("read", path))?;
    let text = str::from_utf8(&bytes).map_err(|_| corrupt("not text"))?.trim();
    if text.contains(|it: char| it.is_whitespace() || it.is_control()) {
        return Err(corrupt("more than one word"));
    }
    ApiKey::parse(text).map_err(corrupt)
}

/// `ak_<24 base62>:default`: 142 bits of randomness.
fn new_api_key() -> Result<String, getrandom::Error> {
    let mut key = "ak_".to_owned();
    while key.len() < 3 + 24 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 on would make some letters likelier than others.
        let letters = bytes.iter().filter(|it| **it < 248).map(|it| BASE62[usize::from(it % 62)]);
        key.extend(letters.take(3 + 24 - key.len()).map(char::from));
    }
    Ok(key + ":default")
}

/// Create the file at `path` with these bytes, for its owner only, durably; or leave no trace there.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let directory = match path.parent() {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => Path::new("."),
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).map_err(refused("create", directory))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let result =
        write_synced(&temporary, bytes).map_err(refused("write", &temporary)).and_then(|()| {
            // A link, unlike a renaming, does not replace what is there.
            fs::hard_link(&temporary, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => SecretError::Exists(path.to_owned()),
                _ => refused("create", path)(source),
            })
        });
    let removed = fs::remove_file(&temporary).map_err(refused("remove", &temporary));
    result?;
    removed?;
    File::open(directory).and_then(|it| it.sync_all()).map_err(refused("sync", directory))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What an interrupted start has left under this name is in nobody's use.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn refused(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretError {
    move |source| SecretError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The seed is 00, 01, … 1f.
    const VECTOR: &str = "08011240000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
                          03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
    const VECTOR_PEER: &str = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";

    fn vector() -> Vec<u8> {
        let digits = VECTOR.as_bytes().chunks(2).map(|it| str::from_utf8(it).unwrap());
        digits.map(|it| u8::from_str_radix(it, 16).unwrap()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_has_the_form_that_libp2p_has() {
        let identity = Identity::from_bytes(&vector()).unwrap();
        assert_eq!(identity.peer_id().to_string(), VECTOR_PEER);
        assert_eq!(identity.to_bytes(), vector());
        assert_eq!(format!("{identity:?}"), format!("Identity(PeerId({VECTOR_PEER:?}))"));
    }

    #[test]
    fn an_identity_is_made_once_for_its_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = scratch.path().join("a/b");
        let made = Identity::load_or_create(&data_dir).unwrap();
        let path = data_dir.join(IDENTITY_FILE);
        assert_eq!((mode(&data_dir), mode(&path)), (0o700, 0o600));
        assert_eq!(fs::read(&path).unwrap(), made.to_bytes());
        assert_eq!(Identity::load_or_create(&data_dir).unwrap().peer_id(), made.peer_id());
        let names: Vec<_> =
            fs::read_dir(&data_dir).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [IDENTITY_FILE]);
    }

    #[test]
    fn a_corrupt_identity_is_told_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(IDENTITY_FILE);
        let mut wrong_public_key = vector();
        wrong_public_key[40] ^= 1;
        let mut wrong_type = vector();
        wrong_type[1] = 0;
        for (name, bytes) in [
            ("empty", vec![]),
            ("short", vector()[..67].to_vec()),
            ("long", [vector(), vec![0]].concat()),
            ("wrong public key", wrong_public_key),
            ("wrong type", wrong_type),
            ("noise", vec![0xa5; 68]),
        ] {
            fs::write(&path, &bytes).unwrap();
            let error = Identity::load_or_create(scratch.path()).unwrap_err();
            assert!(error.to_string().contains("identity.key is corrupt ("), "{name}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "{name}: the file was changed");
        }
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("mine");
        fs::write(&path, "precious").unwrap();
        let error = Identity::generate().save(&path).unwrap_err();
        assert!(matches!(error, SecretError::Exists(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "something was left behind");
    }

    #[test]
    fn an_api_key_is_made_once_for_its_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let key = load_or_create_api_key(scratch.path()).unwrap();
        let [short, long] = key.credentials();
        let random = short.strip_prefix("ak_").unwrap();
        assert_eq!(random.len(), 24);
        assert!(random.bytes().all(|it| it.is_ascii_alphanumeric()));
        assert_eq!(long, format!("{short}:default"));
        let path = scratch.path().join(API_KEY_FILE);
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), (long + "\n", 0o600));
        assert_eq!(load_or_create_api_key(scratch.path()).unwrap(), key);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create_api_key(other.path()).unwrap(), key);
    }

    #[test]
    fn a_corrupt_api_key_is_told_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(API_KEY_FILE);
        for bytes in [&b""[..], b"ak_x", b"a b:default", b"\xff:default", b"ak_x:no space"] {
            fs::write(&path, bytes).unwrap();
            let error = load_or_create_api_key(scratch.path()).unwrap_err();
            assert!(error.to_string().contains("api.key is corrupt ("), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
