//! Zones with a key: who may write there, and what a delegation of them carries.

use std::time::Duration;

use aop::proto::card::Offer;
use aop::proto::card::Scope;
use aop::proto::config::Config;
use aop::proto::grant::Grant;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{Command, Reply, Verdict};
use aop::proto::limits::{DELEGATION_LIFE, DELEGATION_TOMBSTONE_LIFE, GRANT_SLOTS};
use aop::proto::message::Envelope;
use aop::proto::name::ZoneName;
use aop::proto::record::{Author, Delegation, Header, Record, RecordKind, Refusal, SignedRecord};
use aop::proto::registration::WriteError;
use aop::proto::time::Stamp;
use serde_bytes::ByteBuf;

use crate::rules::cluster::{Cluster, DAY, NOW, grant, identity, key, offer};

fn acme() -> ZoneName {
    "acme.org".parse().unwrap()
}

fn zone_key() -> Identity {
    Identity::from_seed([99; 32])
}

fn granted(issuer: &Identity, subject: PeerKey, kind: RecordKind) -> Grant {
    grant(issuer, subject, acme(), kind)
}

fn in_acme(grants: Vec<Vec<u8>>) -> Offer {
    Offer { zone: Some(acme()), grants, ..offer("a", "text") }
}

fn members(count: usize) -> Cluster {
    let config =
        Config { zones: vec![acme()], zone_keys: [(acme(), zone_key().key())].into(), ..Config::default() };
    Cluster::with(vec![config; count])
}

fn register(cluster: &mut Cluster, at: usize, grants: Vec<Vec<u8>>) -> Result<PeerKey, WriteError> {
    let Reply::Registered(mut results) = cluster.command(at, Command::Register(vec![in_acme(grants)])) else {
        panic!("no answer")
    };
    results.remove(0)?;
    let owner =
        cluster.nodes[at].records(&acme()).find(|record| record.host == key(at)).map(|record| record.owner);
    Ok(owner.unwrap())
}

#[test]
fn only_whom_the_key_of_a_zone_grants_writes_there_and_is_the_owner_of_what_he_has_written() {
    let mut cluster = members(3);
    let not_granted = Err(WriteError::NotGranted(acme()));
    assert_eq!(register(&mut cluster, 0, Vec::new()), not_granted);
    let stranger = Identity::from_seed([98; 32]);
    let foreign = granted(&stranger, key(0), RecordKind::Agent).sign(&stranger);
    assert_eq!(register(&mut cluster, 0, vec![foreign]), not_granted);
    let own = granted(&zone_key(), key(0), RecordKind::Agent).sign(&zone_key());
    assert_eq!(register(&mut cluster, 0, vec![own]), Ok(key(0)));
    // A department passes on what it was given: what its hosts write is its own.
    let first = granted(&zone_key(), key(7), RecordKind::Agent).sign(&zone_key());
    let second = granted(&identity(7), key(1), RecordKind::Agent).sign(&identity(7));
    assert_eq!(register(&mut cluster, 1, vec![first, second]), Ok(key(7)));
}

/// What a host says of its delegation of acme.org in the root.
fn header(host: usize) -> Header {
    Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Delegation,
        name: "acme_org".parse().unwrap(),
        owner: key(host),
        host: key(host),
        author: Author { key: key(host), epoch: 1 },
        seq: 0,
        stamp: Stamp { wall: NOW, counter: 0 },
        generation: 0,
        expires_at: NOW + DELEGATION_LIFE,
        scope: Scope::Public,
        slot: 0,
        grants: Vec::new(),
    }
}

#[test]
fn a_record_without_the_keys_grant_is_refused_wherever_it_comes_from_and_one_beyond_its_slots_too() {
    let mut cluster = members(1);
    let written = |grants: Vec<ByteBuf>, slot| Header {
        zone: acme(),
        kind: RecordKind::Agent,
        name: "b".parse().unwrap(),
        seq: 1,
        expires_at: NOW + DAY,
        slot,
        grants,
        ..header(3)
    };
    let body = aop::proto::codec::encode(&offer("b", "text").card);
    let mut verdict = |header: Header| {
        let signed = SignedRecord::sign(header, &body, &identity(3)).unwrap();
        let record = ByteBuf::from(signed.bytes().to_vec());
        cluster.gossip_of(0, 1, &acme(), Envelope::Records(vec![record]).encode())
    };
    assert_eq!(verdict(written(Vec::new(), 0)), Verdict::Reject);
    let grant = ByteBuf::from(granted(&zone_key(), key(3), RecordKind::Agent).sign(&zone_key()));
    assert_eq!(verdict(written(vec![grant.clone()], GRANT_SLOTS)), Verdict::Reject);
    assert_eq!(verdict(written(vec![grant], GRANT_SLOTS - 1)), Verdict::Accept);
}

#[test]
fn a_host_that_used_its_slots_up_is_told_so() {
    let mut cluster = members(1);
    let grant = granted(&zone_key(), key(0), RecordKind::Agent).sign(&zone_key());
    let mut register = |number: u16| {
        let grants = vec![grant.clone()];
        let offer = Offer { zone: Some(acme()), grants, ..offer(&format!("a{number}"), "text") };
        cluster.register(0, offer).map(drop)
    };
    for number in 0..GRANT_SLOTS {
        assert_eq!(register(number), Ok(()), "{number}");
    }
    assert_eq!(register(GRANT_SLOTS), Err(WriteError::QuotaExceeded));
}

#[test]
fn a_host_that_does_not_know_what_it_wrote_before_has_the_upper_half_of_its_slots() {
    let config = Config {
        zones: vec![acme()],
        zone_keys: [(acme(), zone_key().key())].into(),
        expects_peers: true,
        ..Config::default()
    };
    let mut cluster = Cluster::with(vec![config]);
    let grant = granted(&zone_key(), key(0), RecordKind::Agent).sign(&zone_key());
    assert_eq!(register(&mut cluster, 0, vec![grant]), Ok(key(0)));
    let slot = cluster.nodes[0].records(&acme()).map(|record| record.slot).next();
    assert_eq!(slot, Some(GRANT_SLOTS / 2));
}

fn delegation(change: impl FnOnce(&mut Header, &mut Delegation)) -> Result<Record, Refusal> {
    let mut body = Delegation { zone: acme(), addresses: vec![ByteBuf::from(vec![4, 127, 0, 0, 1])] };
    let mut header = header(0);
    change(&mut header, &mut body);
    let is_tombstone = body.addresses.is_empty();
    let body = if is_tombstone { Vec::new() } else { aop::proto::codec::encode(&body) };
    let signed = SignedRecord::sign(header, &body, &identity(0)).unwrap();
    SignedRecord::parse(signed.bytes(), "world")?.verify(NOW)
}

#[test]
fn a_delegation_names_a_zone_below_lives_an_hour_takes_no_version_and_is_buried_for_as_long() {
    assert_eq!(delegation(|_, _| {}).unwrap().delegation().unwrap().zone, acme());
    let refused = |change: fn(&mut Header, &mut Delegation)| delegation(change).err();
    assert_eq!(refused(|header, _| header.name = "acme".parse().unwrap()), Some(Refusal::BadDelegation));
    assert_eq!(refused(|_, body| body.zone = ZoneName::root()), Some(Refusal::BadDelegation));
    assert_eq!(refused(|header, _| header.zone = acme()), Some(Refusal::BadDelegation));
    assert_eq!(
        refused(|_, body| body.addresses[0] = ByteBuf::from(vec![0; 100])),
        Some(Refusal::BadDelegation)
    );
    assert_eq!(refused(|header, _| header.seq = 1), Some(Refusal::BadScope));
    let second = Duration::from_secs(1);
    assert_eq!(
        refused(|header, _| header.expires_at = NOW + DELEGATION_LIFE + Duration::from_secs(1)),
        Some(Refusal::BadLease)
    );
    let buried = |life: Duration| {
        delegation(|header, body| {
            header.expires_at = NOW + life;
            body.addresses.clear();
        })
    };
    assert!(buried(DELEGATION_TOMBSTONE_LIFE).is_ok());
    assert_eq!(buried(DELEGATION_TOMBSTONE_LIFE + second).err(), Some(Refusal::BadLease));
}

#[test]
fn a_delegation_of_a_zone_with_a_key_is_signed_for_that_key() {
    let child = Identity::from_seed([97; 32]);
    let of_child = |header: &mut Header, grant: Grant, signer: &Identity| {
        header.owner = child.key();
        header.grants = vec![ByteBuf::from(grant.sign(signer))];
    };
    // In an open zone above the chain begins with the key of the zone that is named.
    let grant = granted(&child, key(0), RecordKind::Delegation);
    let record = delegation(|header, _| of_child(header, grant.clone(), &child)).unwrap();
    assert_eq!((record.owner, record.granted_by), (child.key(), Some(child.key())));
    let other = Grant { zone: "other.net".parse().unwrap(), ..grant.clone() };
    assert_eq!(delegation(|header, _| of_child(header, other, &child)).err(), Some(Refusal::BadGrant));
    let agents = Grant { kinds: vec![RecordKind::Agent], ..grant };
    assert_eq!(delegation(|header, _| of_child(header, agents, &child)).err(), Some(Refusal::BadGrant));
}
