//! A scenario on real nodes: from its cell to a [`World`] and its measurements.
//!
//! A run has four phases. The world starts and warms up. Clients write while things go wrong; faults without an end of
//! their own end at `until`. From the end of the last fault on the world must come to agree within [`LIVENESS_MS_MAX`],
//! under whatever loss its links have. Then it rests, at least to `until`, its traffic is measured, and all promises are
//! checked.
//!
//! `timeline` says what happens when, `metrics` what is measured of it.

mod calls;
mod metrics;
mod timeline;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::measure::{Broken, Measured, Missing};
use super::scenario::{FaultKind, NodeSet, Scenario, Zone};
use crate::proto::config::Config;
use crate::proto::io::Role;
use crate::proto::limits::ZONE_WEIGHT_MAX;
use crate::proto::name::{FullName, ZoneName};
use crate::sim::{
    Asked, Check, ClientOp, Conditions, Granted, Graph, RestartFrom, Setup, Violation, World, ZoneSetup,
};
use timeline::{Action, Timeline, Wanted};

/// Virtual milliseconds after the end of all faults and writes within which all must agree. Sync with random peers every
/// 30 s makes twenty rounds of it: what reaches one node of a thousand reaches all in ten.
pub const LIVENESS_MS_MAX: u64 = 600_000;
/// Between two looks whether all agree, milliseconds.
const LOOK_MS: u64 = 100;
/// How long a world that agrees comes to rest, and how long its traffic is then measured at the least, milliseconds. A
/// world of more nodes than that many seconds has not sent a beacon of each by then: its scenario sets `until`.
const CALM_MS: u64 = 30_000;
const REST_MS: u64 = 120_000;
/// How long what a node writes by itself may be on its way, milliseconds: two rounds of comparisons.
const ON_ITS_WAY_MS: u64 = 60_000;
/// Wall time after a wrong clock's last stamp at which every lease written under it has ended, milliseconds.
const HORIZON_MS: u64 = 8 * 86_400_000;

/// Plays one run of a cell of the `core` tier.
pub fn play(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
    Run::new(scenario, seed).play()
}

/// As [`play`], with the story of the run.
pub fn play_told(scenario: &Scenario, seed: u64) -> (Vec<String>, Result<Measured, Broken>) {
    let mut run = Run::new(scenario, seed);
    run.world.listen();
    let played = run.play();
    (run.world.told(), played)
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario,
    seed: u64,
    world: World,
    timeline: Timeline,
    /// Who wrote which of the updates and in which zone, where somebody could.
    hosts: Vec<Option<(usize, ZoneName)>>,
    /// Milliseconds from the end of the last fault until all agreed.
    healed_ms: Option<u64>,
    /// Bytes that each node sent in a second of rest.
    rest_bytes: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Run<'a> {
        // Another stream of numbers than the world's own.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2);
        let world = World::new(seed, setup(scenario));
        let timeline = Timeline::of(scenario, world.regions(), &mut rng);
        let hosts = vec![None; scenario.workload.updates];
        Run { scenario, seed, world, timeline, hosts, healed_ms: None, rest_bytes: Vec::new() }
    }

    fn play(&mut self) -> Result<Measured, Broken> {
        let late = self.timeline.late.clone();
        for node in (0..self.world.size()).filter(|node| !late.contains(node)) {
            self.world.start(node, RestartFrom::Disk);
        }
        if let Some(wanted) = &self.scenario.calls {
            calls::plan(&mut self.world, wanted, self.seed);
            self.advance(calls::ends_ms(wanted))?;
        }
        let (healed_at, quiet_at) = (self.timeline.healed_at, self.timeline.quiet_at);
        if let Some(healed_at) = healed_at {
            self.advance(healed_at)?;
            // Clients may write after the last fault, and what they write has its own time to spread.
            let agreed_at = self.agree(healed_at.max(quiet_at))?;
            self.healed_ms = Some(agreed_at - healed_at);
        }
        // Once more for what was written after all agreed.
        self.advance(quiet_at)?;
        self.agree(quiet_at)?;
        if self.timeline.stamped_ahead_ms > 0 {
            // Until such a stamp's time has come others refuse it, and no run is that long.
            self.world.skip(self.timeline.stamped_ahead_ms + HORIZON_MS);
            let now = self.world.now_ms();
            self.agree(now)?;
        }
        self.rest()?;
        Ok(metrics::measure(self))
    }

    /// Lets virtual time pass up to `until`, and what is planned happen.
    fn advance(&mut self, until: u64) -> Result<(), Broken> {
        while let Some((at, action)) = self.timeline.next(until) {
            self.run(at)?;
            self.act(action);
        }
        self.run(until)
    }

    fn run(&mut self, until: u64) -> Result<(), Broken> {
        let for_ms = until.saturating_sub(self.world.now_ms());
        self.world.run(for_ms).map_err(|violation| broken(&violation))
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fault(fault) => self.world.fault(fault),
            Action::Write { update, author } => {
                let nodes = self.world.size();
                let turn = (0..nodes).map(|step| (author + step) % nodes);
                let up = turn.into_iter().find(|at| self.world.is_up(*at));
                self.hosts[update] = up.map(|host| (host, self.zone_of(update, host)));
                if let Some((host, zone)) = self.hosts[update].clone() {
                    let text = timeline::text(update, self.scenario.workload.record_bytes);
                    let offer = ClientOp::Offer(vec![(timeline::name(update), text)]);
                    self.world.submit_in(0, host, zone, offer);
                }
            }
            Action::Ask { node, wanted } => self.ask(node, wanted),
            Action::JoinZone(node, zone) => {
                self.world.submit_in(0, node, zone, ClientOp::JoinZone(Role::Member));
            }
            Action::LeaveZone(node, zone) => self.world.submit_in(0, node, zone, ClientOp::LeaveZone),
            Action::Withdraw { update } => {
                if let Some((host, zone)) = self.hosts[update].clone() {
                    self.world.submit_in(0, host, zone, ClientOp::Withdraw(timeline::name(update)));
                }
            }
        }
    }

    /// A client asks, at a node that is up and serves what the first one serves.
    fn ask(&mut self, node: usize, wanted: Wanted) {
        let asked = match wanted {
            Wanted::Scope(zone) => Asked::Agents(zone),
            Wanted::Nobody(zone) => Asked::Name(FullName { agent: timeline::nobody(), zone }),
            Wanted::Update(update) => match self.hosts[update].clone() {
                Some((_, zone)) => Asked::Name(FullName { agent: timeline::name(update), zone }),
                None => Asked::Agents(ZoneName::root()),
            },
        };
        let nodes = self.world.size();
        let home = self.world.member_of(node).first().cloned();
        let mut turn = (0..nodes).map(|step| (node + step) % nodes);
        let is_asked = |at: &usize| {
            let may = self.scenario.questions.as_ref().is_some_and(|it| it.zone.is_none());
            let is_alike = may || self.world.member_of(*at).first() == home.as_ref();
            self.world.is_up(*at) && self.world.is_honest(*at) && is_alike
        };
        if let Some(at) = turn.find(is_asked) {
            self.world.question_in(0, at, asked);
        }
    }

    /// The zone that an update is written to: a member of several takes them in turns.
    fn zone_of(&self, update: usize, host: usize) -> ZoneName {
        // Never empty: nobody leaves its home.
        let zones = self.world.member_of(host);
        zones[update % zones.len()].clone()
    }

    /// Looks again and again until all agree and serve what was promised; when that was. At the latest some time after
    /// `from` it must be so.
    fn agree(&mut self, from: u64) -> Result<u64, Broken> {
        loop {
            let Some((check, detail)) = self.world.unsettled() else { return Ok(self.world.now_ms()) };
            if self.world.now_ms() >= from + LIVENESS_MS_MAX {
                // Not to agree yet is a lack of progress; to agree on what breaks a promise is worse.
                let (check, missing) = match check {
                    Check::Agreement => (Check::LivenessAfterHeal, Missing::Progress),
                    other => (other, Missing::Safety),
                };
                return Err(Broken {
                    check: check.name().into(),
                    at_ms: self.world.now_ms(),
                    detail,
                    missing,
                });
            }
            self.advance(self.world.now_ms() + LOOK_MS)?;
        }
    }

    fn rest(&mut self) -> Result<(), Broken> {
        // What the last writes set off is no traffic of rest.
        self.advance(self.world.now_ms() + CALM_MS)?;
        let (before, from) = (self.world.metrics().bytes_of.clone(), self.world.now_ms());
        self.advance(self.timeline.until.max(from + REST_MS))?;
        let rested_s = (self.world.now_ms() - from) as f64 / 1e3;
        let sent = self.world.metrics().bytes_of.iter().zip(before).map(|(sent, before)| sent - before);
        self.rest_bytes = sent.map(|sent| sent as f64 / rested_s).collect();
        // Nodes write when the time of something comes, and so also just before the end.
        let is_under_way = |world: &mut World| matches!(world.unsettled(), Some((Check::Agreement, _)));
        let end = self.world.now_ms();
        while self.world.now_ms() < end + ON_ITS_WAY_MS && is_under_way(&mut self.world) {
            self.advance(self.world.now_ms() + LOOK_MS)?;
        }
        self.world.check_settled().map_err(|violation| broken(&violation))
    }
}

fn broken(violation: &Violation) -> Broken {
    let Violation { check, at_ms, detail, .. } = violation;
    let missing = if *check == Check::FoundEverywhere { Missing::Progress } else { Missing::Safety };
    Broken { check: check.name().into(), at_ms: *at_ms, detail: detail.clone(), missing }
}

/// The world of a scenario. The clocks of the nodes it dials judge a node's own, as those of bootstrap peers do.
fn setup(scenario: &Scenario) -> Setup {
    let (network, protocol) = (&scenario.network, &scenario.protocol);
    let defaults = Config::default();
    let sync_interval = protocol.anti_entropy.every.unwrap_or(defaults.sync_interval);
    let ordinary = Conditions::default();
    let is_flooded = scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Sybil { .. }));
    let zone_weight_max = if is_flooded { timeline::FLOODED_WEIGHT_MAX } else { ZONE_WEIGHT_MAX };
    let latency = network.latency.map(|it| (it.least.as_millis() as u64, it.most.as_millis() as u64));
    Setup {
        nodes: timeline::hosts(scenario),
        config: Config { expects_peers: true, sync_interval, ..defaults },
        bootstrapped: true,
        conditions: Conditions {
            loss: network.loss.rate,
            loss_mode: network.loss.mode,
            latency_ms: latency.unwrap_or(ordinary.latency_ms),
            ..ordinary
        },
        graph: Graph::Random(protocol.degree()),
        regions: network.regions,
        zone_weight_max,
        zones: scenario.zones.iter().map(zone_setup).collect(),
        owned: scenario.zones.iter().filter_map(granted).collect(),
        halved: scenario.zones.iter().filter(|zone| zone.halves).map(|zone| zone.name.clone()).collect(),
        dialable: scenario.questions.is_some(),
        calls: scenario.calls.as_ref().map(calls::conditions),
        ..Setup::default()
    }
}

fn granted(zone: &Zone) -> Option<(ZoneName, Granted)> {
    let nodes = zone.granted.as_ref()?.0.iter().copied().collect();
    let ends_ms = zone.grants_end.map(|end| end.as_millis() as u64);
    Some((zone.name.clone(), Granted { nodes, ends_ms }))
}

fn zone_setup(zone: &Zone) -> ZoneSetup {
    let nodes = |set: &NodeSet| set.0.iter().copied().collect();
    ZoneSetup { name: zone.name.clone(), members: nodes(&zone.members), followers: nodes(&zone.followers) }
}
