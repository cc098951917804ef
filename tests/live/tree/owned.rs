//! A zone with a key in a tree: who may write there and name it above, until when, and what is not believed of it.

use std::time::{Duration, Instant};

use aop::document::Offer;
use aop::host::Options;
use aop::proto::code::Code;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::name::{ZoneId, ZoneName};

use super::world::{Site, offer, quick, until, until_whole};
use crate::strangers::granted;

const ZONE: &str = "other.net";
const DAY: Duration = Duration::from_secs(86_400);

/// The key of the zone.
fn key() -> Identity {
    Identity::from_seed([200; 32])
}

fn zone() -> ZoneName {
    ZONE.parse().unwrap()
}

/// Its registry.
pub(super) fn registry() -> ZoneId {
    ZoneId { zone: zone(), key: Some(key().key()) }
}

fn anchored(options: &mut Options) {
    options.zone_keys.insert(zone(), key().key());
}

/// What a node of the zone has in its settings; those of other zones nothing.
pub(super) fn with_grants(options: &mut Options) {
    if options.zones == [zone()] {
        anchored(options);
        let grant = granted(&key(), options.identity.key(), &zone(), DAY);
        options.delegation_grants.insert(zone(), vec![grant]);
    }
}

/// These offers as a node may make them in its zone.
pub(super) fn granted_to(site: &Site, offers: Vec<Offer>) -> Vec<Offer> {
    if site.zone != zone() {
        return offers;
    }
    offers.into_iter().map(|offer| for_a_while(offer, site.key(), DAY)).collect()
}

fn for_a_while(offer: Offer, to: PeerKey, life: Duration) -> Offer {
    Offer { grants: vec![granted(&key(), to, &zone(), life).into_vec()], ..offer }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_zone_with_a_key_nobody_counts_without_its_word_and_with_it_as_long_as_it_says() {
    let site = |name, seed, zone| Site::new(name, seed, zone, quick());
    let root = site("r1", 41, ".").with(anchored).started().await;
    let host = site("o1", 42, ZONE).with(with_grants).knowing(&[&root]).started().await;
    let guest = site("o2", 43, ZONE).with(anchored).knowing(&[&root]).started().await;
    let open = site("x1", 44, ZONE).knowing(&[&root]).started().await;
    let claim = site("x2", 45, "x.other.net").knowing(&[&root]).started().await;

    let refused = guest.handle().register(None, vec![offer("uninvited")]).await.unwrap().remove(0);
    assert_eq!(refused.unwrap_err().code, Code::BadGrant);
    // In a zone of the same name without a key it is at home; nobody who knows the key sees that.
    assert_eq!(open.register(vec![offer("impostor")]).await.len(), 1);
    assert_eq!(claim.register(vec![offer("claimed")]).await.len(), 1);
    let mut agents = host.register(granted_to(&host, vec![offer("welcome")])).await;
    until_whole(&[&root, &host, &guest], &agents, Duration::from_secs(40)).await;
    let tree = root.handle().zones().await.unwrap().zones;
    let named: Vec<(&str, Option<&str>)> =
        tree.iter().map(|zone| (&*zone.zone, zone.key.as_deref())).collect();
    assert_eq!(named, [(".", None), (ZONE, Some(&*key().key().to_string()))], "no claim is followed");

    // What ends within two minutes is compared with nobody: it comes by gossip, and so to members alone.
    let life = Duration::from_secs(8);
    let (granted_at, lasting) = (Instant::now(), agents.clone());
    agents.extend(guest.register(vec![for_a_while(offer("visitor"), guest.key(), life)]).await);
    until_whole(&[&host, &guest], &agents, life - granted_at.elapsed()).await;
    until("its grant has ended", Duration::from_secs(20), async || {
        let gone = host.everything().await.agents == lasting && guest.everything().await.agents == lasting;
        if gone { Ok(()) } else { Err("it is still found".into()) }
    })
    .await;
    assert!(granted_at.elapsed() >= life - Duration::from_secs(1), "{:?}", granted_at.elapsed());
    let again = guest.register(vec![for_a_while(offer("visitor"), guest.key(), DAY)]).await;
    assert_eq!(again.len(), 1, "a new grant holds");
    until_whole(&[&root, &host, &guest], &agents, Duration::from_secs(30)).await;
}
