//! A node's or host agent's identity: an Ed25519 key pair in a file of its own.
//!
//! Invariants:
//! - the key file is made with mode 0600 and never followed through a symbolic link;
//! - the fingerprint depends on the key alone: the certificate around it is made anew at each
//!   start, and peers compare nothing else of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use model::NodeKey;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, PublicKeyData};
use rustix::fs::{Mode, OFlags};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

/// Largest key file that is read; an Ed25519 key in PEM is below 200 bytes.
const KEY_FILE_MAX_BYTES: u64 = 16 * 1024;

/// Why an identity could not be made or loaded.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("identity file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds no usable key.
    #[error("identity file {path} holds no usable private key")]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The key file may be read by others than its owner.
    #[error("identity file {path} has mode {mode:o}: it must be 600")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(rcgen::Error),
}

/// A key pair with a self-signed certificate around it.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    fingerprint: NodeKey,
}

impl std::fmt::Debug for Identity {
    /// Shows the fingerprint; the private key appears nowhere.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// Makes a new key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// [`IdentityError`]; an existing file is left as it is.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(IdentityError::Certificate)?;
        let in_file = |source| IdentityError::File {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| in_file(errno.into()))?;
        let mut file = File::from(fd);
        file.write_all(pair.serialize_pem().as_bytes())
            .map_err(in_file)?;
        file.sync_all().map_err(in_file)?;
        Self::from_pair(&pair)
    }

    /// Loads the key at `path`.
    ///
    /// # Errors
    /// [`IdentityError`]; a symbolic link and a file that others may read are refused.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let in_file = |source| IdentityError::File {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| in_file(errno.into()))?;
        let mode = rustix::fs::fstat(&fd)
            .map_err(|errno| in_file(errno.into()))?
            .st_mode
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut pem = Zeroizing::new(String::new());
        File::from(fd)
            .take(KEY_FILE_MAX_BYTES)
            .read_to_string(&mut pem)
            .map_err(in_file)?;
        let pair = KeyPair::from_pem(&pem).map_err(|_| IdentityError::NoKey {
            path: path.to_owned(),
        })?;
        Self::from_pair(&pair)
    }

    /// Puts the key at `next` in the place of the one at `path`, durably; the old one is gone.
    ///
    /// # Errors
    /// [`IdentityError::File`]; the old key is then still at `path`.
    pub fn replace(path: &Path, next: &Path) -> Result<(), IdentityError> {
        let in_file = |source| IdentityError::File {
            path: path.to_owned(),
            source,
        };
        std::fs::rename(next, path).map_err(in_file)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(in_file)
    }

    fn from_pair(pair: &KeyPair) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(IdentityError::Certificate)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "twinwall");
        let certificate = params
            .self_signed(pair)
            .map_err(IdentityError::Certificate)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())),
            fingerprint: fingerprint_of(&pair.subject_public_key_info()),
        })
    }

    /// What peers pin.
    #[must_use]
    pub const fn fingerprint(&self) -> NodeKey {
        self.fingerprint
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// SHA-256 of a public key in SPKI form (RFC 5280, 4.1.2.7).
pub(crate) fn fingerprint_of(spki: &[u8]) -> NodeKey {
    let digest = ring::digest::digest(&ring::digest::SHA256, spki);
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    NodeKey(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::{Identity, IdentityError};

    #[test]
    fn an_identity_is_the_same_after_loading_and_its_file_is_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("identity.key");
        let made = Identity::create(&path).expect("a new identity");
        let mode = std::fs::metadata(&path)
            .expect("the key file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Identity::load(&path).expect("the same identity");
        assert_eq!(made.fingerprint(), loaded.fingerprint());
        assert!(
            Identity::create(&path).is_err(),
            "an existing key is never overwritten"
        );
    }

    #[test]
    fn a_link_an_exposed_file_and_rubbish_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("identity.key");
        Identity::create(&path).expect("a new identity");
        let link = folder.path().join("link.key");
        symlink(&path, &link).expect("a link");
        assert!(matches!(
            Identity::load(&link),
            Err(IdentityError::File { .. })
        ));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("chmod");
        assert!(matches!(
            Identity::load(&path),
            Err(IdentityError::Exposed { mode: 0o640, .. })
        ));
        std::fs::write(&path, "rubbish").expect("overwrite");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
        assert!(matches!(
            Identity::load(&path),
            Err(IdentityError::NoKey { .. })
        ));
    }
}
