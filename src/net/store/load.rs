//! Opening: reads journal and sled, decides for each key which copy is newer, and heals the part that lacks it.
//!
//! A row that says it is in the journal and is not there tells which part is wrong. If its number is one the journal
//! has passed, the row was removed and sled had not heard of it; if not, the journal has lost its end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{DiskStore, JournalMarker, Tree};
use super::files::{self, MacKey};
use super::journal::{FoundJournal, JOURNAL, Journal, JournalEntry};
use super::room::Room;
use super::row::{RowKind, RowMac, RowView};
use super::tree::{Contents, ExpectedContents, OpenTree, SLED, SledTree, TreeRow};
use super::writer::{TreeWrite, Writer};
use super::{Authenticated, JournalState, Loaded, StoreError, StoreIncident, StoredRow};
use crate::proto::code::Code;

/// Number of the first row of a store.
const SEQ_FIRST: u64 = 1;

/// No row of ours gets that far; a planted one must not make the numbers overflow.
pub(super) const SEQ_MAX: u64 = 1 << 62;

/// Where it is remembered that own writes were lost.
pub(super) fn suspect_path(dir: &Path) -> PathBuf {
    dir.join("journal.suspect")
}

/// Opens, heals and reads the folder.
pub(super) fn open(dir: &Path) -> Result<(DiskStore, Loaded), StoreError> {
    let lock = Arc::new(files::claim_dir(dir)?);
    // Looked at before anything is made: what this start makes would count as history.
    let history = FolderHistory::of(dir);
    let mac_key = files::load_mac_key(dir)?;
    let row_mac = RowMac::new(mac_key.bytes());
    if history == FolderHistory::None {
        Journal::replace(dir, row_mac.salt(), SEQ_FIRST, std::iter::empty())?;
    }
    let found = FoundJournal::read(dir, row_mac.salt())?;
    let room = Room::of(dir);
    let expectation = match mac_key {
        MacKey::Kept(_) if !room.is_short() => ExpectedContents::Rows,
        // Where room was always short, it was told nothing.
        MacKey::Kept(_) | MacKey::Made(_) => ExpectedContents::Anything,
    };
    // The journal first: it says what a row of sled that it lacks means.
    let mut merged = MergedRows::of_journal(&row_mac, found.as_ref());
    // Rows are checked while the next are read.
    let opened = SledTree::open(dir, expectation, |rows| merged.add_tree_rows(&row_mac, rows));
    // What has no room to be opened is not damaged: it stays as it is, and the journal is served.
    let (opened, mut incidents) = match opened {
        Ok(OpenTree { tree, contents, incidents }) => (Ok((tree, contents)), incidents),
        Err(StoreError::NoRoom { reason }) => (Err(reason), Vec::new()),
        Err(error) => return Err(error),
    };
    merged.add_rows_of_journal_alone();
    let state = history.journal_state(&merged, found.as_ref());
    incidents.extend(merged.incidents(dir, &mac_key, found.as_ref()));

    let journal = reconcile_journal(dir, &row_mac, &merged, found.as_ref(), state)?;
    if let MacKey::Made(key) = &mac_key {
        files::save_mac_key(dir, key)?; // after the journal: until then the header is all that tells its salt
    }
    // After the journal, which is whole again by now: a crash in here loses no own write.
    let (tree, untold) = match opened {
        Ok(opened) => reconcile_tree(dir, &row_mac, opened, room, &mut merged, &mut incidents)?,
        Err(reason) => (Err(reason), BTreeSet::new()),
    };

    let marker = if state == JournalState::Damaged { JournalMarker::Present } else { JournalMarker::Absent };
    let next_seq = merged.next_seq;
    // Numbers begin at `SEQ_FIRST`, so there is one before the next. A tree that lacks rows has been told of none.
    let flushed_seq = if untold.is_empty() { next_seq - 1 } else { 0 };
    let tree = match tree {
        Ok(tree) => Tree::Running(Writer::start(tree, lock.clone(), flushed_seq)?),
        Err(reason) => Tree::Failed { reason, flushed_seq: 0 },
    };
    let dir = dir.to_owned();
    let disk =
        DiskStore { dir, row_mac, journal, marker, tree, untold, room, displaced: false, next_seq, lock };
    Ok((disk, Loaded { rows: merged.rows, incidents, journal: state }))
}

/// What the folder shows of earlier starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FolderHistory {
    /// Nothing.
    None,
    /// There was one.
    Some,
    /// There was one, and it lost own writes for which nothing durable was written since.
    Suspect,
}

impl FolderHistory {
    /// The journal is made before everything else and the MAC key last, so that a crash of the first start is told
    /// from a loss.
    fn of(dir: &Path) -> FolderHistory {
        if suspect_path(dir).exists() {
            FolderHistory::Suspect
        } else if dir.join(JOURNAL).exists() || dir.join(SLED).exists() || files::has_mac_key(dir) {
            FolderHistory::Some
        } else {
            FolderHistory::None
        }
    }

    fn journal_state(self, merged: &MergedRows, found: Option<&FoundJournal>) -> JournalState {
        let whole = found.is_some_and(FoundJournal::is_whole) && merged.journal_lost == 0;
        match self {
            FolderHistory::None | FolderHistory::Some if whole && merged.next_seq == SEQ_FIRST => {
                JournalState::Fresh
            }
            FolderHistory::None | FolderHistory::Some if whole => JournalState::Whole,
            FolderHistory::None | FolderHistory::Some | FolderHistory::Suspect => JournalState::Damaged,
        }
    }
}

/// The rows of both parts, brought together.
struct MergedRows {
    /// The newest row of each key that belongs into the journal, removals too.
    journal: BTreeMap<Vec<u8>, JournalRow>,
    /// Whether a key that the journal lacks was removed.
    missing_means: MissingMeans,
    /// What the caller gets.
    rows: Vec<StoredRow>,
    /// What sled has to be told.
    tree_writes: Vec<TreeWrite>,
    /// One above the highest number in the journal, and one above the highest anywhere.
    journal_next: u64,
    next_seq: u64,
    /// Rows that sled has and the journal should have.
    journal_lost: usize,
    /// Rows dropped because their CRC is wrong.
    bad: usize,
}

/// What it means that a journalled row of sled is not in the journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MissingMeans {
    Removed,
    Lost,
}

struct JournalRow {
    view: RowView,
    row: Vec<u8>,
    in_tree: InTree,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InTree {
    No,
    Yes,
}

impl MergedRows {
    fn of_journal(row_mac: &RowMac, found: Option<&FoundJournal>) -> MergedRows {
        let (mut journal, mut bad) = (BTreeMap::<Vec<u8>, JournalRow>::new(), 0);
        for JournalEntry { key, row } in found.iter().flat_map(|found| found.entries()) {
            match row_mac.read(key, row) {
                // Of equal rank the later wins: it was appended later.
                Some(view) if journal.get(key).is_none_or(|old| rank(&old.view) <= rank(&view)) => {
                    journal.insert(key.to_vec(), JournalRow { view, row: row.to_vec(), in_tree: InTree::No });
                }
                Some(_) => {}
                None => bad += 1,
            }
        }
        let missing_means = if found.is_some_and(FoundJournal::is_whole) {
            MissingMeans::Removed
        } else {
            MissingMeans::Lost
        };
        // A planted row may have any number; the sum with one must fit.
        let journal_next = found.map_or(0, FoundJournal::next_seq).min(SEQ_MAX);
        let next_seq = journal_next.max(SEQ_FIRST);
        let (rows, tree_writes) = (Vec::new(), Vec::new());
        MergedRows {
            journal,
            missing_means,
            rows,
            tree_writes,
            journal_next,
            next_seq,
            journal_lost: bad,
            bad,
        }
    }

    /// Adds what sled has.
    fn add_tree_rows(&mut self, row_mac: &RowMac, rows: Vec<TreeRow>) {
        for (key, row) in rows {
            match row_mac.read(&key, &row) {
                Some(view) => self.add_tree_row(key.to_vec(), &row, view),
                None => {
                    self.bad += 1;
                    // Removed as well, so that it is told at one start and not at every one.
                    self.tree_writes.push((key.to_vec(), None));
                }
            }
        }
    }

    /// Adds what only the journal has, after all that sled has.
    fn add_rows_of_journal_alone(&mut self) {
        for (key, JournalRow { view, row, in_tree }) in &self.journal {
            if view.kind != RowKind::Removed && *in_tree == InTree::No {
                self.tree_writes.push((key.clone(), Some(row.clone())));
            }
            if view.kind != RowKind::Removed {
                self.rows.push(stored(key.clone(), row, view));
            }
        }
    }

    fn add_tree_row(&mut self, key: Vec<u8>, row: &[u8], view: RowView) {
        // Above every number seen, in either part, or a new row might lose against an old one.
        self.next_seq = self.next_seq.max(view.seq.min(SEQ_MAX - 1) + 1);
        let Some(own) = self.journal.get_mut(&key) else {
            return self.add_row_of_tree_alone(key, row, view);
        };
        if own.row == row {
            // The usual case by far: both parts agree and nothing has to be written.
            own.in_tree = InTree::Yes;
        } else if rank(&own.view) < rank(&view) && view.kind == RowKind::Journalled {
            self.journal_lost += 1;
            // sled has a newer row that says it is in the journal: the journal has lost it.
            let newer = JournalRow { view: view.clone(), row: row.to_vec(), in_tree: InTree::Yes };
            let older = std::mem::replace(own, newer);
            self.keep_if_doubtful(key, &older.row, &older.view, &view);
        } else if rank(&own.view) < rank(&view) {
            self.journal.remove(&key); // it was removed there before it was written to sled alone
            self.rows.push(stored(key, row, &view));
        } else {
            // sled had not heard of the removal before the crash.
            if own.view.kind == RowKind::Removed {
                self.tree_writes.push((key.clone(), None));
            }
            let newer = own.view.clone();
            self.keep_if_doubtful(key, row, &view, &newer);
        }
    }

    fn add_row_of_tree_alone(&mut self, key: Vec<u8>, row: &[u8], view: RowView) {
        if view.kind != RowKind::Journalled {
            self.rows.push(stored(key, row, &view));
        } else if self.missing_means == MissingMeans::Removed && view.seq < self.journal_next {
            self.tree_writes.push((key, None));
        } else {
            self.journal_lost += 1;
            self.journal.insert(key, JournalRow { view, row: row.to_vec(), in_tree: InTree::Yes });
        }
    }

    /// The older of two rows is nothing to the caller, unless a MAC is wrong and the numbers prove nothing.
    fn keep_if_doubtful(&mut self, key: Vec<u8>, row: &[u8], older: &RowView, newer: &RowView) {
        let doubtful =
            |view: &RowView| view.authenticated == Authenticated::No && view.kind != RowKind::Removed;
        let both_values = older.kind != RowKind::Removed && newer.kind != RowKind::Removed;
        if both_values && (doubtful(older) || doubtful(newer)) {
            self.rows.push(stored(key, row, older));
        }
    }

    fn incidents(&self, dir: &Path, mac_key: &MacKey, found: Option<&FoundJournal>) -> Vec<StoreIncident> {
        let mut incidents = Vec::new();
        let unauthenticated = self.rows.iter().filter(|row| row.authenticated == Authenticated::No).count();
        match found {
            None => incidents.push(journal_missing(dir)),
            Some(found) if !found.is_whole() || self.journal_lost > 0 => {
                incidents.push(journal_damaged(dir, self.journal_lost));
            }
            Some(_) => {}
        }
        match mac_key {
            // A new folder has no key either, and has lost nothing.
            MacKey::Made(_) if !self.rows.is_empty() => incidents.push(files::mac_key_lost(dir)),
            MacKey::Kept(_) if unauthenticated > 0 => incidents.push(mac_wrong(unauthenticated)),
            MacKey::Made(_) | MacKey::Kept(_) => {}
        }
        if self.bad > 0 {
            incidents.push(row_damaged(self.bad));
        }
        incidents
    }
}

/// What decides between two rows of one key: the number, but no unauthenticated row replaces an authenticated one.
fn rank(view: &RowView) -> (bool, u64) {
    (view.authenticated == Authenticated::Yes, view.seq)
}

/// The value of a row, copied for whoever keeps it.
fn stored(key: Vec<u8>, row: &[u8], view: &RowView) -> StoredRow {
    StoredRow { key, value: row[view.value.clone()].into(), authenticated: view.authenticated }
}

/// Goes on with the journal, or writes it again where it is new, damaged, or was made under another MAC key.
fn reconcile_journal(
    dir: &Path,
    row_mac: &RowMac,
    merged: &MergedRows,
    found: Option<&FoundJournal>,
    state: JournalState,
) -> Result<Journal, StoreError> {
    match found {
        Some(found) if found.is_whole() && merged.journal_lost == 0 && found.is_salted(row_mac.salt()) => {
            return Journal::resume(dir, found);
        }
        _ => {}
    }
    if state == JournalState::Damaged {
        files::put_marker(&suspect_path(dir))?; // first: a crash from here on must not hide the loss
        if found.is_some() {
            // Before it is replaced: what was not understood here may still be read by hand.
            files::keep_copy(&dir.join(JOURNAL))?;
        }
    }
    let rows = merged.journal.iter().map(|(key, own)| JournalEntry { key, row: &own.row });
    Journal::replace(dir, row_mac.salt(), merged.next_seq, rows)
}

/// The tree or why there is none, and the keys it lacks.
type Reconciled = (Result<SledTree, String>, BTreeSet<Vec<u8>>);

/// Tells sled what it lacks. Where that fails, it is started again with everything that is known. Where room is short, it
/// is told later.
fn reconcile_tree(
    dir: &Path,
    row_mac: &RowMac,
    (tree, contents): (SledTree, Contents),
    room: Room,
    merged: &mut MergedRows,
    incidents: &mut Vec<StoreIncident>,
) -> Result<Reconciled, StoreError> {
    let writes = std::mem::take(&mut merged.tree_writes);
    let tree = match contents {
        Contents::Kept if writes.is_empty() => return Ok((Ok(tree), BTreeSet::new())),
        Contents::Kept if room.is_short() => {
            return Ok((Ok(tree), writes.into_iter().map(|(key, _)| key).collect()));
        }
        Contents::Kept => match tree.write_through(writes) {
            Ok(()) => return Ok((Ok(tree), BTreeSet::new())),
            Err(reason) => match tree.start_again(dir, &reason) {
                Ok((tree, incident)) => {
                    incidents.push(incident);
                    tree
                }
                Err(StoreError::NoRoom { reason }) => return Ok((Err(reason), BTreeSet::new())),
                Err(error) => return Err(error),
            },
        },
        // An empty tree needs every row and not only the differences.
        Contents::Saved => tree,
    };
    let tree = tree.write_through(merged.all_writes(row_mac)).map(|()| tree);
    Ok((tree, BTreeSet::new()))
}

impl MergedRows {
    /// Everything for an empty tree. Rows that are not authenticated are left out: a MAC made here would vouch for them,
    /// and the caller writes them again once it has verified them.
    fn all_writes(&mut self, row_mac: &RowMac) -> Vec<TreeWrite> {
        let own = self.journal.iter().filter(|(_, own)| own.view.kind != RowKind::Removed);
        let mut writes: Vec<_> = own.map(|(key, own)| (key.clone(), Some(own.row.clone()))).collect();
        for StoredRow { key, value, authenticated } in &self.rows {
            let is_own = self.journal.get(key).is_some_and(|own| own.view.kind != RowKind::Removed);
            if *authenticated == Authenticated::Yes && !is_own {
                writes.push((key.clone(), Some(row_mac.row(key, self.next_seq, RowKind::Value, value))));
                self.next_seq += 1;
            }
        }
        writes
    }
}

impl MacKey {
    fn bytes(&self) -> &[u8; 32] {
        match self {
            MacKey::Kept(key) | MacKey::Made(key) => key,
        }
    }
}

fn journal_missing(dir: &Path) -> StoreIncident {
    StoreIncident {
        code: Code::JournalMissing,
        message: format!(
            "{} was missing; own records that only it held are lost",
            dir.join(JOURNAL).display()
        ),
        fix:
            "Nothing to do: the node takes a new epoch and publishes again. Restore the whole data directory \
              or nothing of it."
                .into(),
    }
}

fn journal_damaged(dir: &Path, recovered: usize) -> StoreIncident {
    StoreIncident {
        code: Code::JournalDamaged,
        message: format!(
            "{} was damaged; a copy was kept beside it, and {recovered} rows were taken from sled",
            dir.join(JOURNAL).display()
        ),
        fix: "Nothing to do: the node takes a new epoch and publishes again. Check the disk.".into(),
    }
}

fn mac_wrong(rows: usize) -> StoreIncident {
    StoreIncident {
        code: Code::SealWrong,
        message: format!(
            "{rows} rows have a wrong seal: they were written under another seal key, or by another"
        ),
        fix: "Nothing to do: they are verified again by their signatures. Check who may write to the folder."
            .into(),
    }
}

fn row_damaged(rows: usize) -> StoreIncident {
    StoreIncident {
        code: Code::RowDamaged,
        message: format!("{rows} rows were damaged and dropped"),
        fix: "Nothing to do: own records are in the journal, others come again from peers. Check the disk."
            .into(),
    }
}
