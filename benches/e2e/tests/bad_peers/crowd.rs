//! Runs the peers of a kind and looks at what they leave.

use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    task::{JoinError, JoinSet},
    time::{error::Elapsed, timeout},
};

use crate::{
    dice::Dice,
    kind::{Kind, Verdict},
    measure::{Usages, await_line, settle_fds, settle_rss, settle_start},
    scene::Scene,
};

/// Longest that one peer may take.
const PEER_LIMIT: Duration = Duration::from_secs(60);
/// Most peers of the first round, which otherwise is as large as the crowd.
const WARM_UP_MAX: u64 = 3_000;
/// Crowds of a kind at most. Memory that has a high-water mark (buffers that larger bursts touch, QUIC connections that are
/// remembered for a while after they closed, RFC 9000 section 10.2) may still rise with the first; a leak rises with each.
const CROWDS_MAX: usize = 3;

pub(crate) struct Crowd<'a> {
    runtime: &'a Runtime,
    scene: Arc<Scene>,
    seed: u64,
    peers: u64,
    /// Before any bad peer came.
    baseline: Usages,
}

/// How a crowd went.
pub(crate) struct Outcome {
    peers: u64,
    before: Usages,
    after: Usages,
    took: Duration,
    pub(crate) failure: Option<String>,
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(runtime: &'a Runtime, scene: Arc<Scene>, seed: u64, peers: u64) -> Self {
        let baseline = Usages::now(&scene);
        Self {
            runtime,
            scene,
            seed,
            peers,
            baseline,
        }
    }

    pub(crate) fn run(&mut self, kind: &Kind) -> Outcome {
        let started = Instant::now();
        let result = self
            .warm_up(kind)
            .and_then(|first| self.crowds(kind, first));
        let (before, after) = result.clone().unwrap_or_else(|_| {
            let now = Usages::now(&self.scene);
            (self.baseline, now)
        });
        Outcome {
            peers: self.peers,
            before,
            after,
            took: started.elapsed(),
            failure: result.err(),
        }
    }

    /// After all of them the processes are as before the first.
    pub(crate) fn back_to_start(&self) -> Verdict {
        settle_fds(&self.scene, &self.baseline)?;
        let after = settle_start(&self.scene, &self.baseline)?;
        println!("memory {} -> {}", self.baseline.rss(), after.rss());
        Ok(())
    }

    /// The first round; gives what its memory is compared with. What it says is checked here, once for the kind.
    fn warm_up(&self, kind: &Kind) -> Result<Usages, String> {
        let from = kind
            .log
            .map(|(who, _)| self.scene.process(who).log_len().unwrap());
        self.send(kind, 0..self.peers.min(WARM_UP_MAX))?;
        if let (Some((who, words)), Some(from)) = (kind.log, from) {
            await_line(&self.scene, who, from, words)?;
        }
        self.scene.check_guest()?;
        settle_fds(&self.scene, &self.baseline)
    }

    /// Gives what was held before and after the crowd that left nothing.
    fn crowds(&self, kind: &Kind, first: Usages) -> Result<(Usages, Usages), String> {
        let mut before = first;
        let mut excess = String::new();
        for _ in 0..CROWDS_MAX {
            self.send(kind, 0..self.peers)?;
            self.scene.check_guest()?;
            settle_fds(&self.scene, &self.baseline)?;
            match settle_rss(&self.scene, &before) {
                Ok(after) => return Ok((before, after)),
                Err(what) => excess = what,
            }
            before = Usages::now(&self.scene);
        }
        Err(excess)
    }

    fn send(&self, kind: &Kind, numbers: Range<u64>) -> Verdict {
        self.runtime.block_on(async {
            let mut peers = JoinSet::new();
            for number in numbers {
                if peers.len() >= kind.at_a_time {
                    verdict(peers.join_next().await)?;
                }
                let dice = Dice::new(self.seed, &kind.name, number);
                let act = kind.act(Arc::clone(&self.scene), dice);
                peers.spawn(timeout(PEER_LIMIT, act));
            }
            while let Some(joined) = peers.join_next().await {
                verdict(Some(joined))?;
            }
            Ok(())
        })
    }
}

fn verdict(joined: Option<Result<Result<Verdict, Elapsed>, JoinError>>) -> Verdict {
    match joined {
        None => Ok(()),
        Some(Ok(Ok(verdict))) => verdict,
        Some(Ok(Err(_))) => Err(format!("a peer was kept for {PEER_LIMIT:?}")),
        Some(Err(panic)) => Err(panic.to_string()),
    }
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        json!({
            "peers": self.peers,
            "fds_before": self.before.fds(),
            "fds_after": self.after.fds(),
            "rss_before": self.before.rss(),
            "rss_after": self.after.rss(),
            "seconds": self.took.as_secs_f64(),
            "failure": self.failure,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.rss(), self.after.rss());
        write!(
            f,
            "{} peers, {:.1} s, memory {before} -> {after}",
            self.peers,
            self.took.as_secs_f64()
        )?;
        match &self.failure {
            None => Ok(()),
            Some(why) => write!(f, ", FAILED: {why}"),
        }
    }
}
