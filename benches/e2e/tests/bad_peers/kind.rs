//! What a kind of bad peer is.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{dice::Dice, scene::Scene};

/// Nothing, or how the product behaved towards the peer other than it should have.
pub(crate) type Verdict = Result<(), String>;

type Act = dyn Fn(Arc<Scene>, Dice) -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync;

/// One of the three processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Broker,
    Host,
    Front,
}

impl Who {
    pub(crate) const ALL: [Self; 3] = [Self::Broker, Self::Host, Self::Front];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Host => "host",
            Self::Front => "front",
        }
    }
}

/// A kind of bad peer.
pub(crate) struct Kind {
    pub(crate) name: String,
    /// Peers of a crowd that are there at once.
    pub(crate) at_a_time: usize,
    /// Whose log has a line with all of these words.
    pub(crate) log: Option<(Who, &'static [&'static str])>,
    act: Box<Act>,
}

impl Kind {
    /// Peers that come sixteen at a time.
    pub(crate) fn new<F, R>(name: impl Into<String>, act: F) -> Self
    where
        F: Fn(Arc<Scene>, Dice) -> R + Send + Sync + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        Self {
            name: name.into(),
            at_a_time: 16,
            log: None,
            act: Box::new(move |scene, dice| Box::pin(act(scene, dice))),
        }
    }

    /// The same for peers that block their thread.
    pub(crate) fn blocking<F>(name: impl Into<String>, act: F) -> Self
    where
        F: Fn(&Scene, Dice) -> Verdict + Send + Sync + 'static,
    {
        let act = Arc::new(act);
        Self::new(name, move |scene, dice| {
            let act = Arc::clone(&act);
            async move {
                let joined = tokio::task::spawn_blocking(move || act(&scene, dice)).await;
                joined.map_err(|error| error.to_string())?
            }
        })
    }

    pub(crate) fn at_a_time(mut self, peers: usize) -> Self {
        self.at_a_time = peers;
        self
    }

    pub(crate) fn logged(mut self, who: Who, words: &'static [&'static str]) -> Self {
        self.log = Some((who, words));
        self
    }

    pub(crate) fn act(
        &self,
        scene: Arc<Scene>,
        dice: Dice,
    ) -> impl Future<Output = Verdict> + Send + use<> {
        (self.act)(scene, dice)
    }
}

/// What a peer was told has to contain one of these (`|` stands between them).
pub(crate) fn expect(told: &str, words: &str) -> Verdict {
    if words.split('|').any(|word| told.contains(word)) {
        return Ok(());
    }
    Err(format!("the peer was told {told:?}, expected {words:?}"))
}
