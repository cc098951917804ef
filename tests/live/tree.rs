//! The tree of zones on real nodes over loopback (protocol section 4): what each of nine nodes finds, and what their answers
//! say while some of them are killed, wiped, late or strangers.

mod lying_dht;
mod owned;
mod traffic;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aop::api::{FindQuery, ZoneRole, ZoneStatus};
use aop::host::CallOptions;
use aop::proto::config::Config;
use futures::future::join_all;
use lying_dht::Liars;
use serde_json::json;
use tokio::time::sleep;
use world::{Site, TICK, documents, offer, quick, until, until_whole};

/// Nine nodes of four zones: two of the root, three of acme.org, two of research.acme.org below it, two of other.net, which
/// has a key.
struct World {
    sites: Vec<Site>,
    /// What each of them registered.
    agents: Vec<BTreeSet<String>>,
    /// Those who lie in its DHT.
    liars: Option<Liars>,
}

/// What the DHT is worth.
#[derive(Clone, Copy, PartialEq)]
enum Dht {
    Honest,
    Lying,
    Off,
}

/// Within this a replica that nobody renews is nothing any more, with [`quick`] timings: it is looked for such every 30 s.
const FORGOTTEN: Duration = Duration::from_secs(75);

const NINE: [(&str, u8, &str); 9] = [
    ("r1", 1, "."),
    ("r2", 2, "."),
    ("a1", 3, "acme.org"),
    ("a2", 4, "acme.org"),
    ("a3", 5, "acme.org"),
    ("o1", 8, "other.net"),
    ("o2", 9, "other.net"),
    ("e1", 6, "research.acme.org"),
    ("e2", 7, "research.acme.org"),
];

/// Of the four zones.
fn topics() -> Vec<String> {
    let zones: BTreeSet<&str> = NINE.iter().map(|(.., zone)| *zone).collect();
    let open = zones.into_iter().map(|zone| format!("/aop/test/zone/{zone}"));
    open.chain([format!("/aop/test/zone/{}", owned::registry())]).collect()
}

impl World {
    /// All nine, each with a probe of its own and its share of real documents.
    async fn start(timings: Config, dht: Dht) -> World {
        let liars = match dht {
            Dht::Lying => Some(Liars::start(&topics()).await),
            Dht::Honest | Dht::Off => None,
        };
        let mut sites: Vec<Site> = Vec::new();
        for (name, seed, zone) in NINE {
            let site = Site::new(name, seed, zone, timings.clone()).with(owned::with_grants);
            let known: Vec<&Site> = sites.iter().take(2).collect();
            let site = site.knowing(&known);
            let site = if dht == Dht::Off { site.without_dht() } else { site };
            // The others start when the two of the root are there.
            sites.push(if sites.len() < 2 { site.started().await } else { site });
        }
        let lie_to = |sites: &[Site]| {
            let met = liars.iter().flat_map(|liars| sites.iter().map(move |site| (liars, site.address())));
            met.for_each(|(liars, address)| liars.meet(address));
        };
        lie_to(&sites[..2]);
        let (early, late) = sites.split_at_mut(7);
        join_all(early[2..].iter_mut().map(Site::start)).await;
        // Before they asked their way for the first time.
        lie_to(&early[2..]);
        // Where a zone and all below it start at once, those below are told nothing for sure for a while: 75 s at most.
        until("acme.org is held", Duration::from_secs(90), async || {
            let seen = early[1].within("acme.org").await;
            if seen.complete && seen.status("acme.org").is_some() { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        join_all(late.iter_mut().map(Site::start)).await;
        lie_to(late);
        // Whoever starts without peers again is the first of its world again.
        let (first, others) = sites.split_at_mut(1);
        first[0].meet(&[&others[0]]);
        let mut hands: Vec<_> =
            sites.iter().map(|site| vec![offer(&format!("probe-{}", site.name))]).collect();
        for (place, document) in documents().into_iter().enumerate() {
            hands[place % NINE.len()].push(document);
        }
        let registered =
            sites.iter().zip(hands).map(|(site, hand)| site.register(owned::granted_to(site, hand)));
        let agents = join_all(registered).await;
        World { sites, agents, liars }
    }

    fn all(&self) -> Vec<&Site> {
        self.sites.iter().collect()
    }

    fn site(&self, name: &str) -> &Site {
        self.sites.iter().find(|site| site.name == name).unwrap()
    }

    fn of_zone(&mut self, zone: &str) -> impl Iterator<Item = &mut Site> {
        self.sites.iter_mut().filter(move |site| site.zone.as_str() == zone)
    }

    /// What the nodes whose names begin so registered.
    fn agents_of(&self, names: &[&str]) -> BTreeSet<String> {
        let is_named = |site: &Site| names.iter().any(|name| site.name.starts_with(name));
        let mine = self.sites.iter().zip(&self.agents).filter(|(site, _)| is_named(site));
        mine.flat_map(|(_, agents)| agents.clone()).collect()
    }

    fn agents(&self) -> BTreeSet<String> {
        self.agents_of(&[""])
    }

    async fn is_whole(&self, patience: Duration) {
        until_whole(&self.all(), &self.agents(), patience).await;
    }

    /// An agent that has just been registered in acme.org is called by its full name from other.net, and soon found there.
    async fn a_new_agent_is_there_at_once(&self, dht: Dht) {
        let (host, asker) = (self.site("a2"), self.site("o1"));
        host.run_echo("fresh");
        until("it is registered", Duration::from_secs(5), async || {
            host.handle().show("fresh@acme.org").await.map_err(|error| error.message)
        })
        .await;
        let registered = Instant::now();
        until("its full name is known", Duration::from_secs(2), async || {
            asker.handle().show("fresh@acme.org").await.map_err(|error| error.message)
        })
        .await;
        // Without a DHT nobody here knows where the host is.
        if dht != Dht::Off {
            let called =
                asker.handle().call("fresh@acme.org", json!({"task": "hello"}), CallOptions::default()).await;
            let called = called.unwrap();
            assert!(called.success && called.served_by == Some(host.peer()), "{called:?}");
        }
        assert!(registered.elapsed() < Duration::from_secs(3), "{:?}", registered.elapsed());
        until("a search finds it", Duration::from_secs(25), async || {
            let query = FindQuery { q: "fresh".into(), max_age_ms: Some(25_000), ..FindQuery::default() };
            let seen = asker.find(query).await;
            if seen.agents.contains("fresh@acme.org") { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    /// Kills all of acme.org and starts it again: what lies below it is found all the time, and its own state told.
    async fn a_zone_between_dies_and_comes_back(&mut self) {
        let (below, others) = (self.agents_of(&["e"]), self.agents_of(&["r", "e", "o"]));
        self.of_zone("acme.org").for_each(Site::kill);
        let (asker, died) = (self.site("o1"), Instant::now());
        let (mut states, mut incomplete_after) = (vec![ZoneStatus::Held], None);
        let is_over = |states: &[ZoneStatus]| states.last() == Some(&ZoneStatus::Unreachable);
        for question in 0.. {
            let seen = asker.everything().await;
            assert!(seen.has(&below) && seen.has(&others), "{:?}: {}", died.elapsed(), seen.lacks(&others));
            if let Some(state) = seen.status("acme.org").filter(|state| !state.is_whole()) {
                assert!(!seen.complete, "{:?}", seen.zones);
                incomplete_after.get_or_insert(died.elapsed());
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
            if is_over(&states) && question >= 300 {
                break;
            }
            assert!(died.elapsed() < FORGOTTEN, "{states:?}");
            sleep(TICK).await;
        }
        assert_eq!(states, [ZoneStatus::Held, ZoneStatus::Stale, ZoneStatus::Unreachable]);
        assert!(incomplete_after.unwrap() < Duration::from_secs(45), "{incomplete_after:?}");
        join_all(self.of_zone("acme.org").map(Site::start)).await;
        let mut agents = self.agents();
        // It runs on the node that runs it.
        agents.insert("fresh@acme.org".into());
        until_whole(&self.all(), &agents, Duration::from_secs(25)).await;
    }
}

/// With the timings of every day, but that two members of a zone who start at once wait a quarter as long for somebody who knows
/// more; and more agents than one page holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_nodes_of_four_zones_find_one_set_and_a_new_agent_at_once() {
    let started = Instant::now();
    let usual = Config { company_after: Duration::from_secs(18), ..Config::default() };
    let mut world = World::start(usual, Dht::Honest).await;
    let many = (0..950).map(|number| offer(&format!("bulk-{number}"))).collect();
    let registered = world.site("a1").register(many).await;
    assert_eq!(registered.len(), 950);
    world.agents[2].extend(registered);
    let agents = world.agents();
    assert!(agents.len() > 1_000, "{}", agents.len());
    world.is_whole(Duration::from_secs(90)).await;
    println!("whole after {:?}", started.elapsed());
    for site in &world.sites {
        let before = site.asked().await;
        let seen = site.everything().await;
        assert!(seen.complete && seen.agents == agents, "{}: {}", site.name, seen.lacks(&agents));
        assert!(seen.pages > 50 && seen.repeated == 0, "{} on {} pages", seen.repeated, seen.pages);
        assert!(seen.age_ms.is_some_and(|age| age <= 60_000), "{}: {:?}", site.name, seen.age_ms);
        let probes = site.find(FindQuery { tag: vec!["probe".into()], ..FindQuery::default() }).await;
        assert_eq!((probes.agents.len(), probes.complete), (9 + 950, true), "{}", site.name);
        let (questions, messages) = site.asked().await;
        let (questions, messages) = (questions - before.0, messages - before.1);
        // Two ways up, and a zone below that was named and not compared here yet.
        assert!(questions > 50 && messages <= 3 * questions, "{}: {messages} for {questions}", site.name);
        let tree = site.handle().zones().await.unwrap().zones;
        let below = tree.iter().filter(|zone| zone.role == ZoneRole::Below).map(|zone| &*zone.zone);
        let may_follow: &[&str] = match site.zone.as_str() {
            "." => &["other.net", "acme.org", "research.acme.org"],
            "acme.org" => &["research.acme.org"],
            _ => &[],
        };
        let below: Vec<&str> = below.collect();
        assert!(below.iter().all(|zone| may_follow.contains(zone)), "{}: {below:?}", site.name);
        assert!(site.zone.as_str() != "." || below == may_follow, "{}: {below:?}", site.name);
    }
    world.a_new_agent_is_there_at_once(Dht::Honest).await;
}

/// What lies below a dead zone is found all the time, and the zone when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_dht_it_is_the_same() {
    let mut world = World::start(quick(), Dht::Off).await;
    world.is_whole(Duration::from_secs(45)).await;
    world.a_new_agent_is_there_at_once(Dht::Off).await;
    world.a_zone_between_dies_and_comes_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dht_that_lies_it_is_the_same() {
    let mut world = World::start(quick(), Dht::Lying).await;
    world.is_whole(Duration::from_secs(45)).await;
    world.a_new_agent_is_there_at_once(Dht::Lying).await;
    world.a_zone_between_dies_and_comes_back().await;
    let asked = world.liars.as_ref().unwrap().asked();
    assert!(asked > 0, "nobody asked them");
    println!("they lied in answer to {asked} questions");
}

/// What only members of the root held is gone with all of their disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_lost_all_its_disks_calls_nothing_complete_that_lacks_an_agent() {
    let mut world = World::start(quick(), Dht::Honest).await;
    world.is_whole(Duration::from_secs(45)).await;
    let kept = world.agents_of(&["a", "e", "o"]);
    world.of_zone(".").for_each(|site| {
        site.kill();
        site.wipe();
    });
    join_all(world.of_zone(".").map(Site::start)).await;
    let (restarted, mut whole_since) = (Instant::now(), None);
    // It must be right for a while after it is whole again, too.
    while whole_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(5)) {
        let answers = join_all(world.sites.iter().map(Site::everything)).await;
        for (site, seen) in world.sites.iter().zip(&answers) {
            let after = restarted.elapsed();
            assert!(!seen.complete || seen.has(&kept), "{} {after:?}: {}", site.name, seen.lacks(&kept));
        }
        if answers.iter().all(|seen| seen.complete) {
            whole_since.get_or_insert_with(Instant::now);
        }
        assert!(restarted.elapsed() < Duration::from_secs(45), "{}", answers[0].lacks(&kept));
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_root_a_zone_answers_for_its_own_subtree_and_names_the_root() {
    let mut world = World::start(quick(), Dht::Honest).await;
    world.is_whole(Duration::from_secs(45)).await;
    world.site("e1").run_echo("fresh");
    world.is_subtree_called("a1").await;
    until("it hangs on acme.org", Duration::from_secs(30), async || {
        let tree = world.site("e1").handle().zones().await.unwrap().zones;
        let own = tree.iter().find(|zone| zone.zone == "research.acme.org");
        let parent = own.and_then(|zone| zone.parent.clone());
        if parent.as_deref() == Some("acme.org") { Ok(()) } else { Err(format!("{parent:?}")) }
    })
    .await;
    world.of_zone(".").for_each(Site::kill);
    let subtree = world.agents_of(&["a", "e"]);
    for name in ["a1", "e1"] {
        let asker = world.site(name);
        until("the root is named", Duration::from_secs(30), async || {
            let seen = asker.everything().await;
            let is_named = seen.status(".").is_some_and(|status| !status.is_whole());
            if is_named && !seen.complete && seen.has(&subtree) { Ok(()) } else { Err(seen.lacks(&subtree)) }
        })
        .await;
        let expected = if name == "a1" { &subtree } else { &world.agents_of(&["e"]) };
        until("the own subtree is complete", Duration::from_secs(10), async || {
            let own = asker.within(asker.zone.as_str()).await;
            assert!(!own.complete || own.has(expected), "{name}: {}", own.lacks(expected));
            if own.complete { Ok(()) } else { Err(own.lacks(expected)) }
        })
        .await;
    }
    world.is_subtree_called("a1").await;
}

impl World {
    /// An agent of the zone below is shown and called by its full name.
    async fn is_subtree_called(&self, name: &str) {
        let asker = self.site(name);
        until("it is called", Duration::from_secs(30), async || {
            asker.handle().show("fresh@research.acme.org").await.map_err(|error| error.message)?;
            let called = asker
                .handle()
                .call("fresh@research.acme.org", json!({"task": "hello"}), CallOptions::default())
                .await;
            let called = called.map_err(|error| error.message)?;
            if called.success { Ok(()) } else { Err(format!("{called:?}")) }
        })
        .await;
    }
}

/// The halves know another node of the root each, and nobody of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_a_zone_that_never_met_become_one_through_the_root() {
    let site = |name, seed, zone| Site::new(name, seed, zone, quick()).without_dht();
    let r1 = site("r1", 11, ".").started().await;
    let r2 = site("r2", 12, ".").knowing(&[&r1]).started().await;
    let (one, other) = (site("a1", 13, "acme.org"), site("a2", 14, "acme.org"));
    let (one, other) = tokio::join!(one.knowing(&[&r1]).started(), other.knowing(&[&r2]).started());
    one.register(vec![offer("left")]).await;
    other.register(vec![offer("right")]).await;
    until("equal fingerprints", Duration::from_secs(60), async || {
        let of = async |site: &Site| site.handle().status().await.unwrap().zones.remove(0);
        let (one, other) = (of(&one).await, of(&other).await);
        let is_one = one.as_of == other.as_of && one.fingerprint == other.fingerprint && one.agents == 2;
        if is_one { Ok(()) } else { Err(format!("{one:?} {other:?}")) }
    })
    .await;
}

/// A zone that is served from now on, above one that was there before, speaks for what lies below only when it knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_is_served_late_hides_nothing_of_what_lies_below() {
    let site = |name, seed, zone| Site::new(name, seed, zone, quick());
    let root = site("r1", 21, ".").started().await;
    let client = site("o1", 22, "other.net").knowing(&[&root]).started().await;
    let below = site("e1", 23, "research.acme.org").knowing(&[&root]).started().await;
    let agents = below.register(vec![offer("deep")]).await;
    let known = async || {
        let seen = client.within("acme.org").await;
        if seen.complete && seen.has(&agents) { Ok(()) } else { Err(seen.lacks(&agents)) }
    };
    until("it is known", Duration::from_secs(30), known).await;
    let mut middle = site("a1", 24, "acme.org").knowing(&[&root]);
    let asking = async {
        let (started, mut is_served) = (Instant::now(), None);
        while is_served.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(5)) {
            let seen = client.within("acme.org").await;
            assert!(!seen.complete || seen.has(&agents), "{:?}: {}", started.elapsed(), seen.lacks(&agents));
            if seen.complete && seen.zones.iter().any(|zone| zone.zone == "acme.org") {
                is_served.get_or_insert_with(Instant::now);
            }
            assert!(started.elapsed() < Duration::from_secs(40), "{}", seen.lacks(&agents));
            sleep(TICK * 2).await;
        }
    };
    tokio::join!(middle.start(), asking);
}

/// Three ways in which an answer was called complete that was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_not_met_anybody_calls_nothing_complete() {
    let nobody = || "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let cut_off = Site::new("cut off", 31, ".", Config::default()).at(nobody()).started().await;
    let seen = cut_off.everything().await;
    assert!(!seen.complete, "{:?}", seen.zones);
    let follower = Site::new("follower", 32, ".", Config::default()).at(nobody());
    let follower = follower.with(|options| options.follows = vec!["acme.org".parse().unwrap()]);
    let follower = follower.started().await;
    let seen = follower.within("acme.org").await;
    assert!(!seen.complete, "{:?}", seen.zones);

    // A zone below of which the root knows, and that it has not compared yet.
    let root = Site::new("r1", 33, ".", quick()).started().await;
    let mut below = Site::new("a1", 34, "acme.org", quick()).knowing(&[&root]).started().await;
    let agents = below.register(vec![offer("alpha")]).await;
    until_whole(&[&root, &below], &agents, Duration::from_secs(30)).await;
    below.kill();
    until("the dead zone is named", FORGOTTEN, async || {
        let seen = root.everything().await;
        assert!(!seen.complete || seen.has(&agents), "{:?}", seen.zones);
        if seen.status("acme.org") == Some(ZoneStatus::Unreachable) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
}
