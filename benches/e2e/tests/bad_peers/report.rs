//! Results, for programs and for a run that goes on where another stopped.

use std::{env, fs, path::PathBuf};

use serde_json::{Map, Value};

use crate::crowd::Outcome;

pub(crate) struct Report {
    path: Option<PathBuf>,
    kinds: Map<String, Value>,
    /// What was there before counts.
    resume: bool,
}

impl Report {
    pub(crate) fn from_env() -> Self {
        let path = env::var_os("POTEMKIN_BAD_PEERS_REPORT").map(PathBuf::from);
        let resume = env::var("POTEMKIN_BAD_PEERS_RESUME").is_ok_and(|value| value == "1");
        let old = path.as_ref().filter(|_| resume);
        let text = old.and_then(|path| fs::read_to_string(path).ok());
        let kinds = text.map_or_else(Map::new, |text| serde_json::from_str(&text).unwrap());
        Self {
            path,
            kinds,
            resume,
        }
    }

    /// Whether the kind has passed with at least so many peers.
    pub(crate) fn has(&self, kind: &str, peers: u64) -> bool {
        let Some(entry) = self.kinds.get(kind).filter(|_| self.resume) else {
            return false;
        };
        entry["peers"].as_u64() >= Some(peers) && entry["failure"].is_null()
    }

    pub(crate) fn add(&mut self, kind: &str, outcome: &Outcome) {
        self.kinds.insert(kind.to_owned(), outcome.json());
        let Some(path) = &self.path else { return };
        let text = serde_json::to_string_pretty(&self.kinds).unwrap();
        // By rename, so that a run that is stopped here leaves a whole file.
        let new = path.with_extension("new");
        fs::write(&new, text + "\n").unwrap();
        fs::rename(&new, path).unwrap();
    }
}
