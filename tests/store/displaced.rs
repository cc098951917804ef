//! A data directory that is removed, moved or replaced under a running node (promise P2): nothing is acknowledged that the
//! next start would not find.

use std::fs;
use std::path::Path;

use aop::net::store::{Store, StoreCondition, Write};

fn put(store: &mut Store, key: &str) -> bool {
    let write = Write { key: key.into(), value: Some(key.as_bytes().into()), durable: true };
    store.write([write]).is_ok()
}

fn keys_after_restart(dir: &Path) -> Vec<String> {
    let (_, loaded) = Store::open(dir).unwrap();
    loaded.rows.into_iter().map(|row| String::from_utf8(row.key).unwrap()).collect()
}

fn says_that_it_is_gone(store: &Store) -> bool {
    matches!(store.condition(), StoreCondition::Failed(reason) if reason.contains("removed, moved or replaced"))
}

#[test]
fn a_folder_that_is_moved_away_takes_no_writes_and_is_written_again_where_it_comes_back() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, away) = (parent.path().join("data"), parent.path().join("away"));
    let (mut store, _) = Store::open(&dir).unwrap();
    assert!(put(&mut store, "before"));
    fs::rename(&dir, &away).unwrap();
    store.look();
    assert!(says_that_it_is_gone(&store), "noticed though nobody writes");
    assert!(!put(&mut store, "meanwhile"));
    store.recover();
    assert!(says_that_it_is_gone(&store));
    assert!(!dir.exists(), "and no other folder is made in its place");
    fs::rename(&away, &dir).unwrap();
    store.recover();
    assert_eq!(store.condition(), StoreCondition::Well);
    assert!(put(&mut store, "after"));
    store.close().unwrap();
    assert_eq!(keys_after_restart(&dir), ["after", "before"]);
}

#[test]
fn a_folder_that_is_deleted_or_emptied_takes_no_writes() {
    let parent = tempfile::tempdir().unwrap();
    for (name, keeps_the_folder) in [("deleted", false), ("emptied", true)] {
        let dir = parent.path().join(name);
        let (mut store, _) = Store::open(&dir).unwrap();
        assert!(put(&mut store, "before"));
        fs::remove_dir_all(&dir).unwrap();
        if keeps_the_folder {
            fs::create_dir(&dir).unwrap();
        }
        assert!(!put(&mut store, "meanwhile"), "{name}");
        assert!(says_that_it_is_gone(&store), "{name}");
    }
}

#[test]
fn a_folder_that_takes_the_place_of_another_is_not_written_to() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, other) = (parent.path().join("data"), parent.path().join("other"));
    let (mut store, _) = Store::open(&other).unwrap();
    assert!(put(&mut store, "of the other"));
    store.close().unwrap();
    let (mut store, _) = Store::open(&dir).unwrap();
    assert!(put(&mut store, "before"));
    fs::rename(&dir, parent.path().join("away")).unwrap();
    fs::rename(&other, &dir).unwrap();
    assert!(!put(&mut store, "meanwhile"));
    store.recover();
    assert!(says_that_it_is_gone(&store));
    drop(store);
    assert_eq!(keys_after_restart(&dir), ["of the other"]);
}

#[test]
fn a_journal_that_is_deleted_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    assert!(put(&mut store, "before"));
    fs::remove_file(dir.path().join("journal")).unwrap();
    assert!(!put(&mut store, "meanwhile"), "the next start would not find it");
    store.recover();
    assert_eq!(store.condition(), StoreCondition::Well);
    assert!(put(&mut store, "after"));
    store.close().unwrap();
    // Only the journal promises these rows.
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    assert_eq!(keys_after_restart(dir.path()), ["after", "before"]);
}
