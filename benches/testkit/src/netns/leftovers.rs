//! Names that say whose they are, and the removal of what dead processes left.

use std::sync::Once;

use super::{NAMES, ip};
use crate::{Error, Result};

const PREFIX: &str = "potemkin";

/// The name of this process's namespace `number`: `potemkin-PID-START-NUMBER-LABEL`.
pub(super) fn own_name(number: u32, label: &str) -> Result<String> {
    let pid = std::process::id();
    let start =
        start_time(pid).ok_or_else(|| Error::Usage("cannot read /proc/self/stat".to_owned()))?;
    Ok(format!("{PREFIX}-{pid}-{start}-{number}-{label}"))
}

/// Does [`remove_leftovers`] the first time it is called in this process.
pub(super) fn remove_once() {
    static DONE: Once = Once::new();
    DONE.call_once(remove_leftovers);
}

/// Removes the namespaces that this kit made in processes that no longer live. The first [`Netns::new`](super::Netns::new) of
/// a process does it by itself.
pub fn remove_leftovers() {
    let Ok(names) = std::fs::read_dir(NAMES) else {
        // No namespace was ever made on this machine.
        return;
    };
    for entry in names.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if owner_is_dead(name) {
            // Another process may be removing it as well.
            let _ = ip(["netns", "del", name]);
        }
    }
}

fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) {
        return false;
    }
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(pid), Some(start)) = (number(), number()) else {
        return false;
    };
    let Ok(pid) = u32::try_from(pid) else {
        return false;
    };
    start_time(pid) != Some(start)
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)). With the id it
/// names one process, although ids are used again.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn own_names_belong_to_a_living_process() {
        let name = own_name(0, "a-label-with-dashes").unwrap();

        assert!(!owner_is_dead(&name), "{name}");
    }

    #[test]
    fn a_used_again_process_id_is_not_the_owner() {
        let pid = std::process::id();

        assert!(owner_is_dead(&format!("potemkin-{pid}-1-0-x")));
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "docker-1-1-0-x",
            "potemkin-lab",
            "potemkin--1-0-x",
            "potemkin",
        ] {
            assert!(!owner_is_dead(name), "{name}");
        }
    }
}
