//! Descriptors and memory of the three processes.

use std::{
    thread,
    time::{Duration, Instant},
};

use potemkin_testkit::process::Usage;
use serde_json::{Value, json};

use crate::{kind::Who, scene::Scene};

/// Resident memory that a crowd may leave in a process, in bytes. The allocator keeps freed pages in its arenas, and how
/// many depends on which peers happened to be there together; that does not grow with the number of peers, whereas what is
/// kept of each of 10,000 peers shows from 420 bytes on.
const RSS_SLACK: u64 = 4 << 20;
/// What all crowds together may leave: tables that grew, and pages in which something lives.
const START_SLACK: u64 = 8 << 20;
/// How long a process may take to give freed memory back.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long what a crowd held may take to be given back. Above all timeouts of a peer that went silently.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// The same for memory, which an allocator may also keep: then more time is of no use.
const RSS_LIMIT: Duration = Duration::from_secs(8);
/// How long a line may take to come to a log.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at `/proc`.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the three hold, in the order of [`Who::ALL`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usages([Usage; 3]);

impl Usages {
    pub(crate) fn now(scene: &Scene) -> Self {
        Self(Who::ALL.map(|who| scene.process(who).usage().unwrap()))
    }

    pub(crate) fn fds(&self) -> Value {
        self.each(|usage| json!(usage.fds))
    }

    pub(crate) fn rss(&self) -> Value {
        self.each(|usage| json!(usage.rss_bytes))
    }

    fn each(&self, what: impl Fn(&Usage) -> Value) -> Value {
        let names = Who::ALL.map(Who::name);
        let pairs = names.iter().zip(&self.0);
        pairs
            .map(|(name, usage)| ((*name).to_owned(), what(usage)))
            .collect()
    }

    fn find(&self, other: &Self, bad: impl Fn(&Usage, &Usage) -> Option<String>) -> Option<String> {
        let pairs = Who::ALL.iter().zip(self.0.iter().zip(&other.0));
        pairs
            .filter_map(|(who, (now, base))| Some(format!("{}: {}", who.name(), bad(now, base)?)))
            .reduce(|all, one| format!("{all}; {one}"))
    }
}

/// Waits until no process has more descriptors open than in `base`.
pub(crate) fn settle_fds(scene: &Scene, base: &Usages) -> Result<Usages, String> {
    settle(scene, SETTLE_LIMIT, |now| {
        now.find(base, |now, base| {
            (now.fds > base.fds).then(|| format!("{} descriptors, {} before", now.fds, base.fds))
        })
    })
}

/// Waits until no process has more memory than in `base`.
pub(crate) fn settle_rss(scene: &Scene, base: &Usages) -> Result<Usages, String> {
    settle(scene, RSS_LIMIT, |now| more_memory(now, base, RSS_SLACK))
}

/// Waits until each process has about the memory with which it started.
pub(crate) fn settle_start(scene: &Scene, start: &Usages) -> Result<Usages, String> {
    settle(scene, START_LIMIT, |now| {
        more_memory(now, start, START_SLACK)
    })
}

fn more_memory(now: &Usages, base: &Usages, slack: u64) -> Option<String> {
    now.find(base, |now, base| {
        let (now, base) = (now.rss_bytes, base.rss_bytes);
        (now > base + slack).then(|| format!("{now} bytes resident, {base} before"))
    })
}

fn settle(
    scene: &Scene,
    limit: Duration,
    excess: impl Fn(&Usages) -> Option<String>,
) -> Result<Usages, String> {
    let deadline = Instant::now() + limit;
    loop {
        let now = Usages::now(scene);
        match excess(&now) {
            None => return Ok(now),
            Some(what) if Instant::now() > deadline => return Err(what),
            Some(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Waits until a process's log has, from byte `from` on, a whole line with all the words.
pub(crate) fn await_line(scene: &Scene, who: Who, from: u64, words: &[&str]) -> Result<(), String> {
    let deadline = Instant::now() + LOG_LIMIT;
    loop {
        let news = scene.process(who).log_from(from).unwrap();
        let whole = news.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if whole
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            let tail: Vec<_> = whole.lines().rev().take(3).collect();
            return Err(format!(
                "no line of the {}'s log has {words:?}; its last: {tail:#?}",
                who.name()
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
}
