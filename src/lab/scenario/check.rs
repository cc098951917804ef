//! What a tier cannot do is refused before anything runs.

use std::collections::BTreeMap;

use super::answer::Template;
use super::file::nearest;
use super::{Expectation, Fault, FaultKind, Groups, Rounds, Scenario, SpreadProtocol, Tier, Wanted, plain};
use crate::lab::measure::METRICS;
use crate::lab::theory;
use crate::proto::name::ZoneName;

/// Most nodes of the tiers that run real nodes.
const CORE_NODES_MAX: usize = 20_000;
const MESH_NODES_MAX: usize = 2_000;
/// Seeds of a scenario: more say nothing new.
const SEEDS_MAX: usize = 100_000;

/// Swept keys and their values.
type Parameters = BTreeMap<String, toml::Value>;

/// Updates of one run; the model counts them in 24 bits.
const UPDATES_MAX: usize = (1 << 24) - 1;
/// Pairs of a node and an update: the model keeps a bit for each.
const PAIRS_MAX: usize = 1 << 33;

/// What is wrong, and where: keys and positions.
pub(super) struct Wrong {
    pub(super) path: Vec<String>,
    pub(super) message: String,
}

fn wrong(path: &str, message: impl Into<String>) -> Wrong {
    Wrong { path: path.split('/').map(str::to_owned).collect(), message: message.into() }
}

/// Judges a cell; `here` are the swept keys, which an expectation may ask for, and their values. Sections are judged
/// each for itself.
pub(super) fn check(scenario: &Scenario, here: &Parameters) -> Vec<Wrong> {
    let mut judged = vec![
        check_texts(scenario),
        check_seeds(scenario),
        check_network(scenario),
        check_protocol(scenario),
        check_workload(scenario),
        check_zones(scenario),
        check_questions(scenario),
        check_calls(scenario),
        check_answer(scenario, here),
    ];
    judged.extend(scenario.faults.iter().enumerate().map(|(at, fault)| check_fault(scenario, at, fault)));
    for (list, expectations) in lists(scenario) {
        judged.extend(expectations.iter().enumerate().map(|(at, expectation)| {
            check_expectation(scenario, expectation, here)
                .map_err(|(key, message)| wrong(&format!("{list}/{at}/{key}"), message))
        }));
    }
    judged.into_iter().filter_map(Result::err).collect()
}

/// Judges whether the values that expectations and the answer ask for are in the file's sweep, whatever `--set` leaves
/// of it.
pub(super) fn check_places(original: &Scenario) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let mut judge = |path: &str, key: &String, value: &toml::Value| {
        // A key that is not swept at all is told of by `check_swept`.
        let Some(values) = original.sweep.get(key) else { return };
        let values: Vec<_> = values.iter().map(plain).collect();
        if !values.contains(&plain(value)) {
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            let message = format!("no cell has {key} = {}; the sweep has {}", plain(value), texts.join(", "));
            wrongs.push(wrong(path, message));
        }
    };
    for (list, expectations) in lists(original) {
        for (number, expectation) in expectations.iter().enumerate() {
            for (key, value) in &expectation.at {
                judge(&format!("{list}/{number}/at/{key}"), key, value);
            }
        }
    }
    // One that cannot be read was told of by `check_answer`.
    let template = original.answer.as_deref().and_then(|text| Template::parse(text).ok());
    for figure in template.iter().flat_map(Template::figures) {
        for (key, value) in &figure.at {
            judge("answer", key, value);
        }
    }
    wrongs
}

fn lists(scenario: &Scenario) -> [(&'static str, &Vec<Expectation>); 2] {
    [("claims", &scenario.claims), ("expect", &scenario.expectations)]
}

fn check_answer(scenario: &Scenario, here: &Parameters) -> Result<(), Wrong> {
    let Some(text) = &scenario.answer else { return Ok(()) };
    let template = Template::parse(text).map_err(|message| wrong("answer", message))?;
    for figure in template.figures() {
        check_metric(scenario, &figure.metric).map_err(|message| wrong("answer", message))?;
        check_swept(&figure.at, here).map_err(|message| wrong("answer", message))?;
    }
    Ok(())
}

fn check_seeds(scenario: &Scenario) -> Result<(), Wrong> {
    match scenario.seeds.count {
        0..=SEEDS_MAX => Ok(()),
        count => Err(wrong("seeds/count", format!("{count} seeds: at most {SEEDS_MAX}"))),
    }
}

fn check_fault(scenario: &Scenario, at: usize, fault: &Fault) -> Result<(), Wrong> {
    check_kind(scenario, &fault.kind).map_err(|message| wrong(&format!("fault/{at}"), message))?;
    let zone = match &fault.kind {
        FaultKind::JoinZone { zone, .. } | FaultKind::LeaveZone { zone, .. } => Some(zone),
        FaultKind::Partition { groups: Groups::Zone(zone), .. } => Some(zone),
        _ => fault.zone.as_ref(),
    };
    check_known(scenario, zone, &format!("fault/{at}/zone"))?;
    if scenario.until.is_some_and(|until| fault.at >= until) {
        return Err(wrong(&format!("fault/{at}/at"), "the run is over before this happens; see `until`"));
    }
    Ok(())
}

fn check_texts(scenario: &Scenario) -> Result<(), Wrong> {
    let is_label = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
    };
    if !is_label(&scenario.name) {
        return Err(wrong("name", "a name is lower-case letters, digits and `-`, as the file's"));
    }
    if scenario.question.trim().is_empty() {
        return Err(wrong("question", "what is to be found out?"));
    }
    Ok(())
}

fn check_network(scenario: &Scenario) -> Result<(), Wrong> {
    let network = &scenario.network;
    let (most, tier) = match scenario.tier {
        Tier::Model => (usize::MAX, "model"),
        Tier::Core => (CORE_NODES_MAX, "core"),
        Tier::Mesh => (MESH_NODES_MAX, "mesh"),
    };
    if network.nodes < 2 {
        return Err(wrong("network/nodes", "one node has nobody to tell: at least 2"));
    }
    if network.nodes > most {
        return Err(wrong(
            "network/nodes",
            format!("the {tier} tier plays at most {most} nodes; the model plays more"),
        ));
    }
    if !(0.0..1.0).contains(&network.loss.rate) {
        return Err(wrong("network/loss/rate", "a loss rate is a share: 0.1 is ten percent, and below 1"));
    }
    if network.regions.is_some() && network.latency.is_some() {
        return Err(wrong("network/latency", "regions say how long links are; leave out one of the two"));
    }
    Ok(())
}

fn check_protocol(scenario: &Scenario) -> Result<(), Wrong> {
    let (protocol, nodes) = (&scenario.protocol, scenario.network.nodes);
    let mesh = protocol.kind == SpreadProtocol::Mesh;
    if scenario.tier != Tier::Model && !mesh {
        return Err(wrong("protocol/kind", "real nodes form a mesh: kind = \"mesh\", or tier = \"model\""));
    }
    if mesh && protocol.fanout.is_some() {
        return Err(wrong("protocol/fanout", "a mesh has a degree: degree = 6"));
    }
    if !mesh && protocol.degree.is_some() {
        return Err(wrong("protocol/degree", "push has a fan-out: fanout = 3"));
    }
    if mesh && protocol.rounds != Rounds::Forever {
        return Err(wrong("protocol/rounds", "a mesh forwards each update once; rounds is for push"));
    }
    let timed = scenario.network.regions.is_some() || scenario.network.latency.is_some();
    if mesh && !timed {
        return Err(wrong("network", "a mesh needs times: latency = \"25ms\", or regions = \"cloud-8\""));
    }
    let (peers, key) = if mesh { (protocol.degree(), "degree") } else { (protocol.fanout(), "fanout") };
    // That one node has nobody was said of the network.
    if peers >= nodes && nodes > 1 {
        let message = format!("{peers} peers of {nodes} nodes: at most {}", nodes - 1);
        return Err(wrong(&format!("protocol/{key}"), message));
    }
    if mesh && peers < 2 {
        return Err(wrong("protocol/degree", "a mesh of degree 1 is pairs that never meet: at least 2"));
    }
    if scenario.tier == Tier::Core && protocol.anti_entropy.every.is_none() {
        return Err(wrong(
            "protocol/anti_entropy",
            "real nodes always reconcile: anti_entropy = { every = \"30s\", on_join = true }; the model can do without",
        ));
    }
    Ok(())
}

fn check_workload(scenario: &Scenario) -> Result<(), Wrong> {
    let workload = &scenario.workload;
    // Put as a denial, so that NaN is refused as well.
    if workload.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(wrong("workload/rate", "updates a second, above 0"));
    }
    if workload.authors.is_some_and(|authors| authors > scenario.network.nodes) {
        return Err(wrong("workload/authors", "more authors than nodes"));
    }
    if !(0.0..=1.0).contains(&workload.withdrawn) {
        return Err(wrong("workload/withdrawn", "a share, 0 to 1"));
    }
    if scenario.tier == Tier::Model && workload.withdrawn > 0.0 {
        return Err(wrong("workload/withdrawn", "the model has no deletes; tier = \"core\" has"));
    }
    if workload.updates > UPDATES_MAX {
        return Err(wrong(
            "workload/updates",
            format!("{} updates: at most {UPDATES_MAX}", workload.updates),
        ));
    }
    if scenario.network.nodes.saturating_mul(workload.updates) > PAIRS_MAX {
        let message = "nodes times updates is beyond 2^33, a gigabyte of bits: fewer of one of them";
        return Err(wrong("workload/updates", message));
    }
    Ok(())
}

fn check_zones(scenario: &Scenario) -> Result<(), Wrong> {
    if !scenario.zones.is_empty() && scenario.tier != Tier::Core {
        let message = format!("the {} tier knows one zone; tier = \"core\" knows many", scenario.tier.name());
        return Err(wrong("zone", message));
    }
    for (at, zone) in scenario.zones.iter().enumerate() {
        let path = |key: &str| format!("zone/{at}/{key}");
        if scenario.zones[..at].iter().any(|before| before.name == zone.name) {
            return Err(wrong(&path("name"), format!("{} is there twice", zone.name)));
        }
        let (members, followers) = (&zone.members.0, &zone.followers.0);
        let beyond = members.union(followers).find(|node| **node >= scenario.network.nodes);
        if let Some(node) = beyond {
            let message = format!("no node {node}: they are 0 to {}", scenario.network.nodes - 1);
            return Err(wrong(&path("members"), message));
        }
        if let Some(node) = members.intersection(followers).next() {
            return Err(wrong(&path("followers"), format!("node {node} is a member already")));
        }
    }
    Ok(())
}

/// A zone that is asked about or struck is one that somebody serves.
fn check_known(scenario: &Scenario, zone: Option<&ZoneName>, path: &str) -> Result<(), Wrong> {
    match zone.filter(|zone| !scenario.zones.iter().any(|it| it.name == **zone)) {
        Some(zone) => {
            let message = format!("no zone {zone}: [[zone]] with name = \"{zone}\" says who serves it");
            Err(wrong(path, message))
        }
        None => Ok(()),
    }
}

fn check_questions(scenario: &Scenario) -> Result<(), Wrong> {
    let Some(questions) = &scenario.questions else { return Ok(()) };
    if scenario.tier != Tier::Core {
        let message = format!("the {} tier asks nobody; tier = \"core\" does", scenario.tier.name());
        return Err(wrong("questions", message));
    }
    if scenario.zones.is_empty() {
        return Err(wrong("questions", "a question leads from zone to zone: [[zone]] says who serves which"));
    }
    // Put as denials, so that NaN is refused as well.
    if !(questions.rate > 0.0 && questions.rate.is_finite()) {
        return Err(wrong("questions/rate", "questions a second, above 0"));
    }
    if !(0.0..=1.0).contains(&questions.names) {
        return Err(wrong("questions/names", "a share, 0 to 1"));
    }
    if questions.zipf.is_some_and(|exponent| !(exponent > 0.0 && exponent.is_finite())) {
        return Err(wrong("questions/zipf", "an exponent above 0, mostly 1.0"));
    }
    check_known(scenario, questions.zone.as_ref(), "questions/zone")?;
    if questions.scope.as_ref().is_some_and(|scope| !scope.is_root()) {
        check_known(scenario, questions.scope.as_ref(), "questions/scope")?;
    }
    Ok(())
}

fn check_calls(scenario: &Scenario) -> Result<(), Wrong> {
    let Some(calls) = &scenario.calls else { return Ok(()) };
    if scenario.tier != Tier::Core {
        let message = format!("the {} tier calls nobody; tier = \"core\" does", scenario.tier.name());
        return Err(wrong("calls", message));
    }
    let nodes = scenario.network.nodes;
    if calls.hosts + calls.callers > nodes {
        return Err(wrong("calls/callers", format!("hosts and callers are other nodes, of {nodes}")));
    }
    let above = |value: f64| value > 0.0 && value.is_finite();
    // Put as denials, so that NaN is refused as well.
    if !above(calls.load) {
        return Err(wrong("calls/load", "what arrives, of what the hosts can do: above 0"));
    }
    if !calls.speeds.iter().all(|speed| above(*speed)) {
        return Err(wrong("calls/speeds", "speeds above 0, such as [1.0, 2.0]"));
    }
    if !(0.0..=1.0).contains(&calls.failing_share) {
        return Err(wrong("calls/failing_share", "a share, 0 to 1"));
    }
    if calls.failing > calls.hosts || calls.gone.is_some_and(|gone| gone.hosts > calls.hosts) {
        return Err(wrong("calls/hosts", "fewer than fail or are gone"));
    }
    if !(calls.greedy >= 0.0 && calls.greedy.is_finite()) || calls.crowd.is_some_and(|it| !above(it.times)) {
        return Err(wrong("calls/crowd", "times above 0; `greedy` at least 0"));
    }
    Ok(())
}

fn check_kind(scenario: &Scenario, kind: &FaultKind) -> Result<(), String> {
    let possible = match scenario.tier {
        Tier::Core => true,
        Tier::Model => matches!(
            kind,
            FaultKind::Partition { .. }
                | FaultKind::Churn { .. }
                | FaultKind::Mute { .. }
                | FaultKind::Join { .. }
        ),
        Tier::Mesh => matches!(kind, FaultKind::Partition { .. } | FaultKind::Join { .. }),
    };
    if !possible {
        return Err(format!(
            "the {} tier knows no {}; tier = \"core\" does",
            scenario.tier.name(),
            kind.name()
        ));
    }
    if matches!(kind, FaultKind::Partition { groups: Groups::Regions, .. })
        && scenario.network.regions.is_none()
    {
        return Err("by = \"region\" needs regions: network.regions = \"cloud-8\"".into());
    }
    Ok(())
}

fn check_expectation(
    scenario: &Scenario,
    expectation: &Expectation,
    here: &Parameters,
) -> Result<(), (&'static str, String)> {
    check_metric(scenario, &expectation.metric).map_err(|message| ("metric", message))?;
    if matches!(expectation.wanted, Wanted::WithinOfTheory(_)) {
        if scenario.theory.is_none() {
            return Err(("of", "which theory? add [theory] with curve = \"push\"".into()));
        }
        // Which formulas there are differs by cell: one may lack what another has.
        let is_here =
            expectation.at.iter().all(|(key, value)| here.get(key).map(plain) == Some(plain(value)));
        if is_here {
            check_formula(scenario, &expectation.metric).map_err(|message| ("metric", message))?;
        }
    }
    check_swept(&expectation.at, here).map_err(|message| ("at", message))
}

fn check_metric(scenario: &Scenario, metric: &str) -> Result<(), String> {
    let of_tier = METRICS.iter().filter(|it| it.tiers.contains(&scenario.tier));
    if of_tier.clone().any(|it| it.name == metric) {
        return Ok(());
    }
    let meant = nearest(metric, of_tier.map(|it| it.name));
    let hint = meant
        .map_or_else(|| "`aop sim list --metrics` names them".into(), |it| format!("did you mean `{it}`?"));
    Err(format!("the {} tier has no metric `{metric}`; {hint}", scenario.tier.name()))
}

fn check_formula(scenario: &Scenario, metric: &str) -> Result<(), String> {
    let formulas = theory::metrics(scenario);
    if formulas.contains_key(metric) {
        return Ok(());
    }
    let names: Vec<&str> = formulas.keys().map(String::as_str).collect();
    Err(format!("theory says nothing of `{metric}` here; it has {}", names.join(", ")))
}

fn check_swept(at: &Parameters, here: &Parameters) -> Result<(), String> {
    match at.keys().find(|key| !here.contains_key(*key)) {
        Some(key) => Err(format!("`{key}` is not swept, so no cell has a value of it")),
        None => Ok(()),
    }
}
