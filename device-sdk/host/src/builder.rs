//! Putting a host together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use potemkin_sdk::{AccessLog, Device};
use potemkin_service::config::BadValue;
use potemkin_service::metrics::{MetricsError, MetricsServer};
use potemkin_service::reload::CertificateWatch;
use potemkin_session::ids::Incarnation;
use potemkin_transport::{
    IdentityPattern, ListenOptions, Role, TlsMaterial, TransportError, listen,
};
use tokio::sync::broadcast;

use crate::control::{Broker, Control};
use crate::host::Host;
use crate::live::LiveSessions;
use crate::meters::Meters;
use crate::names::{BadLabels, BadName, check_labels, check_name};
use crate::pool::Pool;
use crate::served::Served;
use crate::session::{Desk, Sessions};
use crate::settings::{DEVICES_MAX, DeviceSection, HostSettings};
use crate::state::{StateDir, StateError};

/// Ended sessions that may wait for a slow broker; what does not fit is not told.
const REPORTS_MAX: usize = 1_024;

/// Collects the devices of a host. Those of the configuration's `[[devices]]` are served too.
///
/// ```no_run
/// # async fn serve(
/// #     settings: potemkin_host::HostSettings,
/// #     counter: Box<dyn potemkin_sdk::Device>,
/// #     shutdown: potemkin_service::Shutdown,
/// # ) -> Result<(), potemkin_host::HostError> {
/// let host = potemkin_host::HostBuilder::new(settings, std::path::Path::new("."))
///     .device("counter-0", "counter", counter)
///     .bind()
///     .await?;
/// println!("listening on {}", host.addresses().listen);
/// host.run(shutdown).await
/// # }
/// ```
#[derive(Debug)]
pub struct HostBuilder {
    settings: HostSettings,
    base: PathBuf,
    offers: Vec<Offer>,
}

/// A device, and how the pool knows it.
pub struct Offer {
    id: String,
    class: String,
    labels: BTreeMap<String, String>,
    device: Box<dyn Device>,
}

/// Why a host cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The configuration, with its certificates.
    #[error(transparent)]
    Settings(#[from] BadValue),
    /// A device's id or class.
    #[error("device {device}: {field}")]
    Name {
        /// Which device.
        device: String,
        /// `id` or `class`.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: BadName,
    },
    /// A device's labels.
    #[error("device {device}: labels")]
    Labels {
        /// Which device.
        device: String,
        /// What is wrong.
        #[source]
        source: BadLabels,
    },
    /// Two devices have one id.
    #[error("device {device}: id: given twice")]
    Twice {
        /// The id.
        device: String,
    },
    /// None, or too many.
    #[error("devices: {count} given: give 1 to {DEVICES_MAX}")]
    Count {
        /// How many.
        count: usize,
    },
    /// An access log cannot be opened.
    #[error("device {device}: access_log: cannot open {}", .path.display())]
    AccessLog {
        /// Which device.
        device: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What should be remembered between runs.
    #[error(transparent)]
    State(#[from] StateError),
    /// The data plane.
    #[error("listen")]
    Transport(#[from] TransportError),
    /// Metrics.
    #[error("metrics_listen")]
    Metrics(#[from] MetricsError),
    /// The operating system gives no random numbers.
    #[error("no randomness for the incarnation: {0}")]
    Random(getrandom::Error),
}

impl Offer {
    /// A device under an id, unique in the pool, and a class, both 1 to 63 characters of `[a-z0-9.-]` with a letter or digit at either
    /// end.
    pub fn new(id: impl Into<String>, class: impl Into<String>, device: Box<dyn Device>) -> Self {
        Self {
            id: id.into(),
            class: class.into(),
            labels: BTreeMap::new(),
            device,
        }
    }

    /// Adds a label, for selectors. At most 32, of at most 63 bytes.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

impl HostBuilder {
    /// A host with this configuration; `base` is the folder that its relative paths start from.
    #[must_use]
    pub fn new(settings: HostSettings, base: &Path) -> Self {
        Self {
            settings,
            base: base.to_owned(),
            offers: Vec::new(),
        }
    }

    /// Serves a device without labels.
    #[must_use]
    pub fn device(
        self,
        id: impl Into<String>,
        class: impl Into<String>,
        device: Box<dyn Device>,
    ) -> Self {
        self.offer(Offer::new(id, class, device))
    }

    /// Serves a device.
    #[must_use]
    pub fn offer(mut self, offer: Offer) -> Self {
        self.offers.push(offer);
        self
    }

    /// Makes the devices and binds the ports. Nothing is served before [`Host::run`], and then only to sessions that a broker, with which the
    /// host is registered, has fenced it for.
    ///
    /// # Errors
    ///
    /// The configuration is unusable, a port is taken, or the state cannot be read.
    pub async fn bind(self) -> Result<Host, HostError> {
        self.settings.check()?;
        let Self {
            settings,
            base,
            mut offers,
        } = self;
        for (index, section) in settings.devices.iter().enumerate() {
            offers.push(offer_of(section, index, &base)?);
        }
        check_offers(&offers)?;
        let tls = settings.load_tls(&base)?;
        let certificates = CertificateWatch::new(&settings.tls, &base, &tls);
        let accept = pattern_or_own(settings.accept.as_deref(), &tls);
        let brokers = brokers_of(&settings, &tls);
        let state = StateDir::open(&settings.state_dir.resolve(&base))?;
        let metrics = MetricsServer::start(settings.metrics_listen)?;
        let listener = listen(ListenOptions::new(settings.listen, tls.clone())).await?;

        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation).map_err(HostError::Random)?;
        let incarnation = Incarnation::from_bytes(incarnation);
        let pool: Arc<Pool> = Arc::new(
            offers
                .into_iter()
                .map(|offer| offer.served(&state))
                .collect(),
        );
        let reports = broadcast::Sender::new(REPORTS_MAX);
        let meters = Meters::new();
        let live = Arc::<LiveSessions>::default();
        let desk = Arc::new(Desk {
            live: Arc::clone(&live),
            pool: Arc::clone(&pool),
            accept,
            incarnation,
            reports: reports.clone(),
            meters: meters.clone(),
            grace: settings.session.grace.into(),
            started: Instant::now(),
            refused: AtomicU64::new(0),
        });
        let control = Arc::new(Control {
            pool: Arc::clone(&pool),
            incarnation,
            state: Arc::new(Mutex::new(state)),
            reports,
            live: Arc::clone(&live),
            meters,
            tls,
            bound: listener.local_addr(),
            advertise: settings.advertise,
        });
        Ok(Host {
            listener,
            metrics,
            sessions: Sessions(desk),
            control,
            brokers,
            pool,
            certificates,
        })
    }
}

impl Offer {
    fn check(&self) -> Result<(), HostError> {
        for (field, text) in [("id", &self.id), ("class", &self.class)] {
            check_name(text).map_err(|source| HostError::Name {
                device: self.id.clone(),
                field,
                source,
            })?;
        }
        check_labels(&self.labels).map_err(|source| HostError::Labels {
            device: self.id.clone(),
            source,
        })
    }

    fn served(self, state: &StateDir) -> Served {
        let highest = state.highest(&self.id);
        Served::new(self.id, self.class, self.labels, self.device, highest)
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("id", &self.id)
            .field("class", &self.class)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

fn offer_of(section: &DeviceSection, index: usize, base: &Path) -> Result<Offer, HostError> {
    let mut device = section.build(index)?;
    if let Some(path) = &section.access_log {
        device = logged(device, &section.id, path.resolve(base))?;
    }
    let offer = Offer::new(&section.id, &section.kind, device);
    Ok(Offer {
        labels: section.labels.clone(),
        ..offer
    })
}

/// What guests read and write is nobody else's business: 0600.
fn logged(device: Box<dyn Device>, id: &str, path: PathBuf) -> Result<Box<dyn Device>, HostError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| HostError::AccessLog {
            device: id.to_owned(),
            path: path.clone(),
            source,
        })?;
    let device_id = id.to_owned();
    let log = AccessLog::new(device, file).on_error(move |error| {
        tracing::error!(device = device_id, path = %path.display(), %error, "access log ended");
    });
    Ok(Box::new(log))
}

fn check_offers(offers: &[Offer]) -> Result<(), HostError> {
    if offers.is_empty() || offers.len() > DEVICES_MAX {
        return Err(HostError::Count {
            count: offers.len(),
        });
    }
    let mut ids = BTreeSet::new();
    for offer in offers {
        offer.check()?;
        if !ids.insert(&offer.id) {
            return Err(HostError::Twice {
                device: offer.id.clone(),
            });
        }
    }
    Ok(())
}

fn brokers_of(settings: &HostSettings, tls: &TlsMaterial) -> Vec<Broker> {
    let broker = |section: &crate::settings::BrokerSection| Broker {
        addr: section.addr.clone(),
        expect: pattern_or_own(section.identity.as_deref(), tls),
    };
    settings.brokers.iter().map(broker).collect()
}

/// The pattern that was given (it parses: the settings were checked), or every broker of our own trust domain.
fn pattern_or_own(given: Option<&str>, tls: &TlsMaterial) -> IdentityPattern {
    let own = || IdentityPattern::same_domain(tls.identity(), Role::Broker);
    given.and_then(|text| text.parse().ok()).unwrap_or_else(own)
}

#[cfg(test)]
mod tests {
    use potemkin_devices::Scratch;

    use super::*;

    fn offer(id: &str, class: &str) -> Offer {
        let device = Scratch::new(64).expect("64 is a size");
        Offer::new(id, class, Box::new(device))
    }

    #[test]
    fn sound_offers_are_taken() {
        let offers = [
            offer("a", "scratch").label("zone", "a"),
            offer("b", "scratch"),
        ];

        assert!(check_offers(&offers).is_ok());
    }

    #[test]
    fn unsound_offers_are_refused_by_device_and_field() {
        let cases = [
            (vec![offer("A", "scratch")], "device A: id"),
            (vec![offer("a", "")], "device a: class"),
            (
                vec![offer("a", "scratch").label("", "b")],
                "device a: labels",
            ),
            (
                vec![offer("a", "scratch"), offer("a", "scratch")],
                "device a: id: given twice",
            ),
            (vec![], "devices: 0 given"),
        ];
        for (offers, expected) in cases {
            let error = check_offers(&offers).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
