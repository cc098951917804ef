//! What honest nodes are promised among others, hostile ones too: bounded memory, forks told, their own names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Check, Checkers};
use crate::proto::identity::PeerKey;
use crate::proto::io::{NodeAlert, Write};
use crate::proto::query::ZoneStatus;
use crate::proto::record::{Author, Record, RecordHash, RecordKind, SignedRecord};
use crate::proto::time::Timestamp;
use crate::proto::zone::Zone;
use crate::sim::fabric::Fabric;

/// Forks of more authors than this need not be told: a node remembers no more.
const FORKS_TOLD: usize = 256;

/// How long a delegation, or its tombstone, may be held: no longer than somebody may speak for its zone, and what clocks may be
/// off.
const DELEGATION_MAX: Duration = Duration::from_secs(3_600 + 300);

impl Checkers {
    /// A full disk did not keep a row: a version of an own record in it is used up, and nobody ever sees it.
    pub(in crate::sim) fn note_unkept(&mut self, at: usize, write: &Write, fabric: &mut Fabric) {
        if let (Some(b'o'), Some(value)) = (write.key.first(), &write.value)
            && let Ok(signed) = fabric.nodes.decode(at, value)
        {
            let header = signed.header();
            self.unkept.insert((header.zone.clone(), header.author, header.seq));
        }
    }

    /// A record that a node takes carries the right signature; each distinct one is verified once.
    pub(super) fn check_signature(&mut self, at: usize, record: &Record, fabric: &mut Fabric) {
        let Fabric { nodes, kernel, .. } = fabric;
        if !nodes.is_honest(at) || !self.verified.insert(record.hash()) {
            return;
        }
        let signed = SignedRecord::parse(record.bytes(), &nodes[at].config.network);
        // As of its own stamp: whether it has ended since is no matter of signatures.
        if !signed.is_ok_and(|signed| signed.verify(record.stamp.wall).is_ok()) {
            kernel.fail(Check::Verified, format!("node {at} takes {record:?}, which does not verify"));
        }
        // Where zones come and go the one above would hold the graves of a week.
        let lasts = record.expires_at.since(record.stamp.wall);
        if record.kind == RecordKind::Delegation && lasts > DELEGATION_MAX {
            kernel.fail(Check::GatewaysAlone, format!("node {at} holds {record:?} for {lasts:?}"));
        }
    }

    /// Who holds two records of one author and version knows that the author is forked.
    pub(super) fn check_forks(&self, at: usize, fabric: &mut Fabric) {
        let Some(node) = fabric.nodes[at].node.as_ref() else { return };
        let told: BTreeSet<Author> = node.forks().map(|(author, _)| author).collect();
        let mut forked = BTreeSet::new();
        for zone in node.zones().map(Zone::name) {
            let mut versions: BTreeMap<(Author, u64), RecordHash> = BTreeMap::new();
            // What never leaves a node has no version, so all of that would seem forked.
            for record in node.records(zone).filter(|record| record.seq > 0) {
                if versions.insert((record.author(), record.seq), record.hash()).is_some() {
                    forked.insert(record.author());
                }
            }
        }
        if let Some(silent) = forked.difference(&told).next().filter(|_| told.len() < FORKS_TOLD) {
            let detail = format!("node {at} holds a fork of {silent} and tells nobody");
            fabric.kernel.fail(Check::ForksShown, detail);
        }
    }

    /// What a node says of itself and of others rests on whom it met: an answer is complete after a comparison, members are
    /// hosts and connected peers, whoever else says that it is one.
    pub(super) fn check_standing(&self, at: usize, fabric: &mut Fabric) {
        let Fabric { nodes, kernel, .. } = &mut *fabric;
        // Who is in several zones may be the first of one of them.
        let is_in_tree = nodes.are_dialable;
        let has_one_zone = nodes[at].config.zones.len() + nodes[at].config.follows.len() == 1;
        let Some((node, now)) = nodes.read(at, kernel.wall()) else { return };
        let expects_peers = node.config().expects_peers;
        for state in node.zone_states(now) {
            let zone = &state.zone;
            let is_held = node.zone_answer(zone, now).is_some_and(|it| it.status == ZoneStatus::Held);
            // Nor need anybody be met where the zone above knew nobody.
            let may_hold =
                !expects_peers || !has_one_zone || is_in_tree || self.compared.contains(&(at, zone.clone()));
            if is_held && !may_hold {
                let detail = format!("node {at} calls its answers of {zone} complete, and met nobody");
                kernel.fail(Check::AnswerIsHonest, detail);
            }
            let hosts = node.records(zone).filter(|it| it.is_agent() && !it.is_tombstone()).map(|it| it.host);
            let real: BTreeSet<PeerKey> = hosts.chain(state.peers).chain([node.key()]).collect();
            if state.members > real.len() {
                let detail =
                    format!("node {at} counts {} members of {zone}, not {}", state.members, real.len());
                kernel.fail(Check::MembersAreReal, detail);
            }
        }
    }

    /// No live card stands under a host's key but those it offers, or knows to be of an earlier folder; delegations are on no
    /// disk. A host gives up
    /// after a second writer under its key, and does not bury what it meets while its clock forbids it to write.
    pub(super) fn check_own_keys(&self, at: usize, fabric: &mut Fabric) {
        let wall = fabric.kernel.wall();
        let host = &fabric.nodes[at];
        let Some(node) = host.node.as_ref() else { return };
        let gave_up = self.silenced.contains(&at)
            || node.alerts().iter().any(|(alert, _)| matches!(alert, NodeAlert::DuplicateIdentity(_)));
        let ends_after = Timestamp(wall + super::quiescence::ENDING_MS);
        let strange = node
            .zones()
            .map(Zone::name)
            .flat_map(|zone| node.records(zone))
            .filter(|it| it.is_agent() && it.host == host.key)
            .filter(|it| !it.is_tombstone() && it.expires_at > ends_after)
            .filter(|it| !node.is_restored(&it.key()))
            .find(|record| {
                let row = host.disk.rows().get([b"o", &record.key().0[..]].concat().as_slice());
                row.is_none_or(|row| row != record.bytes())
            })
            .cloned();
        if let Some(strange) = strange.filter(|_| !gave_up) {
            let detail = format!("node {at} lets {strange:?} stand in its name and does not offer it");
            fabric.kernel.fail(Check::HostSpeaks, detail);
        }
    }
}
