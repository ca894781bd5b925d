//! Certificates that are replaced while the process runs.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potemkin_transport::TlsMaterial;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{BadValue, TlsSection};

/// How often the files are looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(2);

/// Watches the files of a `[tls]` section. When they have changed and been left alone since (a new CA with the old certificate would
/// be half a change), and on SIGHUP, all are read anew and put into the process's [`TlsMaterial`]; if they are not good, the old stay
/// in use and the log says why, once for each state of the files.
#[derive(Debug)]
pub struct CertificateWatch {
    section: TlsSection,
    base: PathBuf,
    material: TlsMaterial,
    /// The files as they were when they were last read.
    read: [Option<Stamp>; 3],
    /// The files as they were when they were last looked at.
    seen: [Option<Stamp>; 3],
}

/// What a file's replacement changes: device, inode, size, and times of modification and of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([i64; 4], [u64; 3]);

impl CertificateWatch {
    /// Watches the files that `material` was loaded from just now.
    #[must_use]
    pub fn new(section: &TlsSection, base: &Path, material: &TlsMaterial) -> Self {
        let mut watch = Self {
            section: section.clone(),
            base: base.to_owned(),
            material: material.clone(),
            read: [None; 3],
            seen: [None; 3],
        };
        watch.seen = watch.stamps();
        watch.read = watch.seen;
        watch
    }

    /// Watches for as long as it is polled.
    pub async fn run(self) -> Infallible {
        let mut watch = self;
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::error!(%error, "SIGHUP does not reload certificates"))
            .ok();
        loop {
            let asked = tokio::select! {
                () = next(&mut hangup) => true,
                () = tokio::time::sleep(CHECK_PERIOD) => false,
            };
            // A folder on a network may be slow, and this thread carries data.
            let check = tokio::task::spawn_blocking(move || {
                watch.check(asked);
                watch
            });
            watch = match check.await {
                Ok(watch) => watch,
                // The runtime is going down.
                Err(_) => return std::future::pending().await,
            };
        }
    }

    /// Reads the files anew if they have changed, or if somebody asked for it. `false`: neither.
    fn check(&mut self, asked: bool) -> bool {
        // Before the files are read: what changes meanwhile is found the next time.
        let stamps = self.stamps();
        let left_alone = stamps == self.seen;
        self.seen = stamps;
        if !asked && (stamps == self.read || !left_alone) {
            return false;
        }
        self.read = stamps;
        match self.replace() {
            Ok(()) => {
                tracing::info!(identity = %self.material.identity(), "certificates reloaded");
            }
            Err(error) => {
                tracing::error!(%error, "certificates not reloaded: the old ones stay in use");
            }
        }
        true
    }

    fn replace(&self) -> Result<(), BadValue> {
        // Of another role is of another identity.
        let role = self.material.identity().role();
        let newer = self.section.load(&self.base, &[role])?;
        self.material
            .replace(&newer)
            .map_err(|error| BadValue::new("tls.cert", error.to_string()))
    }

    fn stamps(&self) -> [Option<Stamp>; 3] {
        let TlsSection { ca, cert, key } = &self.section;
        [ca, cert, key].map(|file| Stamp::of(&file.resolve(&self.base)))
    }
}

impl Stamp {
    /// `None`: there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        let times = [
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ];
        Some(Self(times, [meta.dev(), meta.ino(), meta.size()]))
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_transport::Role;

    use super::*;
    use crate::certs::{DevOptions, IssueOptions, issue, write_dev};
    use crate::config::ConfigPath;

    fn section() -> TlsSection {
        TlsSection {
            ca: ConfigPath::from("ca.pem"),
            cert: ConfigPath::from("agent.pem"),
            key: ConfigPath::from("agent.key"),
        }
    }

    fn watched() -> (tempfile::TempDir, CertificateWatch) {
        let folder = tempfile::tempdir().unwrap();
        write_dev(folder.path(), &DevOptions::default()).unwrap();
        let material = section().load(folder.path(), &[Role::Agent]).unwrap();
        let watch = CertificateWatch::new(&section(), folder.path(), &material);
        (folder, watch)
    }

    /// Looks as often as it takes. Gives whether the files were read.
    fn looked_at(watch: &mut CertificateWatch) -> bool {
        let at_once = watch.check(false);
        assert!(!at_once, "they may be changing yet");
        watch.check(false)
    }

    #[test]
    fn files_that_were_not_touched_are_not_read() {
        let (_folder, mut watch) = watched();
        assert!(!looked_at(&mut watch));
        assert!(watch.check(true), "unless somebody asks");
    }

    #[test]
    fn replaced_files_are_read_once() {
        let (folder, mut watch) = watched();
        let options = DevOptions {
            force: true,
            ..DevOptions::default()
        };
        write_dev(folder.path(), &options).unwrap();

        assert!(looked_at(&mut watch));
        assert!(!looked_at(&mut watch));
    }

    #[test]
    fn a_broken_or_missing_file_is_tried_once_and_read_when_it_is_good_again() {
        let (folder, mut watch) = watched();
        let key = folder.path().join("agent.key");
        let good = std::fs::read(&key).unwrap();

        std::fs::write(&key, "no key").unwrap();
        assert!(looked_at(&mut watch));
        assert!(!looked_at(&mut watch));
        std::fs::remove_file(&key).unwrap();
        assert!(looked_at(&mut watch));
        assert!(!looked_at(&mut watch));
        std::fs::write(&key, good).unwrap();
        assert!(looked_at(&mut watch));
    }

    #[test]
    fn another_identity_is_refused() {
        let (folder, watch) = watched();
        let options = IssueOptions {
            role: Role::Agent,
            name: "other".to_owned(),
            force: false,
        };
        let other = issue(folder.path(), &options).unwrap();
        let newer = TlsMaterial::load(&folder.path().join("ca.pem"), &other.cert, &other.key);

        let error = watch.material.replace(&newer.unwrap()).unwrap_err();

        assert!(error.to_string().contains("agent/other"), "{error}");
    }
}
