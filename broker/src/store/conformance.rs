//! What every store must do, as tests that each implementation runs.

#![allow(clippy::unwrap_used)]

use super::{ClaimRow, DeviceRow, MemoryStore, RedbStore, Store, StoreError};
use crate::ids::{ClaimId, DeviceId};

/// A place where a store can be opened again and again.
trait Bench {
    type Store: Store;
    fn open(&self) -> Self::Store;
}

struct InMemory(MemoryStore);

impl Bench for InMemory {
    type Store = MemoryStore;
    fn open(&self) -> MemoryStore {
        self.0.clone()
    }
}

struct OnDisk(tempfile::TempDir);

impl Bench for OnDisk {
    type Store = RedbStore;
    fn open(&self) -> RedbStore {
        RedbStore::open(&self.0.path().join("broker.redb")).unwrap()
    }
}

fn row(device: &str, epoch: u64, claim: Option<(u128, bool)>) -> DeviceRow {
    DeviceRow {
        device: DeviceId::parse(device).unwrap(),
        epoch,
        claim: claim.map(|(id, implicit)| ClaimRow {
            id: ClaimId(id),
            owner: "spiffe://potemkin.dev/agent/a".into(),
            implicit,
        }),
    }
}

fn a_new_store_is_empty(bench: &impl Bench) {
    assert_eq!(bench.open().load().unwrap(), []);
}

fn rows_come_back_whole_and_in_order(bench: &impl Bench) {
    let rows = [
        row("a", u64::MAX, Some((u128::MAX, true))),
        row("b", 1, Some((1, false))),
        row("c", 7, None),
    ];
    let store = bench.open();
    store.commit(&[rows[2].clone(), rows[0].clone()]).unwrap();
    store.commit(&[rows[1].clone()]).unwrap();
    assert_eq!(store.load().unwrap(), rows);
}

fn rows_survive_reopening(bench: &impl Bench) {
    bench
        .open()
        .commit(&[row("a", 3, Some((9, false)))])
        .unwrap();
    assert_eq!(
        bench.open().load().unwrap(),
        [row("a", 3, Some((9, false)))]
    );
}

fn a_later_row_replaces_the_earlier(bench: &impl Bench) {
    let store = bench.open();
    store.commit(&[row("a", 3, Some((9, true)))]).unwrap();
    store.commit(&[row("a", 4, None)]).unwrap();
    assert_eq!(store.load().unwrap(), [row("a", 4, None)]);
}

fn an_epoch_going_back_fails_the_whole_commit(bench: &impl Bench) {
    let store = bench.open();
    store.commit(&[row("b", 5, None)]).unwrap();
    let refused = store.commit(&[row("a", 1, None), row("b", 4, None)]);
    assert!(matches!(
        refused,
        Err(StoreError::EpochWentBack {
            stored: 5,
            asked: 4,
            ..
        })
    ));
    assert_eq!(store.load().unwrap(), [row("b", 5, None)]);
}

fn the_same_epoch_may_be_written_again(bench: &impl Bench) {
    let store = bench.open();
    store.commit(&[row("a", 5, None)]).unwrap();
    store.commit(&[row("a", 5, Some((2, false)))]).unwrap();
    assert_eq!(store.load().unwrap(), [row("a", 5, Some((2, false)))]);
}

/// One test per rule and store.
macro_rules! conforms {
    ($store:ident, $new:expr, [$($rule:ident),* $(,)?]) => {
        mod $store {
            use super::*;
            $(#[test]
            fn $rule() {
                super::$rule(&$new);
            })*
        }
    };
    ($store:ident, $new:expr) => {
        conforms!($store, $new, [
            a_new_store_is_empty,
            rows_come_back_whole_and_in_order,
            rows_survive_reopening,
            a_later_row_replaces_the_earlier,
            an_epoch_going_back_fails_the_whole_commit,
            the_same_epoch_may_be_written_again,
        ]);
    };
}

conforms!(memory, InMemory(MemoryStore::default()));
conforms!(redb, OnDisk(tempfile::tempdir().unwrap()));
