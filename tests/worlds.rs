//! Scenarios on real nodes: what a run of the `core` tier does and measures.

use aop::sim::measure::{METRICS, Measured};
use aop::sim::play::play;
use aop::sim::scenario::{Document, Scenario, Tier};

/// A scenario of real nodes; `more` is TOML that follows its tables.
fn scenario(nodes: usize, network: &str, more: &str) -> Scenario {
    let text = format!(
        "name = \"world\"\nquestion = \"Does it hold?\"\nclaim = \"none\"\ntier = \"core\"\n\
         [network]\nnodes = {nodes}\n{network}\n\
         [protocol]\nkind = \"mesh\"\ndegree = 4\nanti_entropy = {{ every = \"30s\", on_join = true }}\n{more}"
    );
    Document::read(&text, &[]).unwrap_or_else(|flaw| panic!("{flaw}\n{text}")).scenario
}

fn played(scenario: &Scenario, seed: u64) -> Measured {
    play(scenario, seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"))
}

fn metric(measured: &Measured, name: &str) -> f64 {
    *measured.metrics.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", measured.metrics))
}

#[test]
fn try_all() {
    for (name, nodes, network, more) in [
        ("plain", 30, "latency = \"25ms\"", "[workload]\nupdates = 10"),
        ("regions", 40, "regions = \"cloud-8\"", "[workload]\nupdates = 10\nrate = 2"),
        ("loss", 30, "latency = \"25ms\"\nloss = { rate = 0.3 }", "[workload]\nupdates = 10"),
        (
            "retransmit",
            30,
            "latency = \"25ms\"\nloss = { rate = 0.3, mode = \"retransmit\" }",
            "[workload]\nupdates = 10",
        ),
        (
            "partition",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 30\nrate = 1\nwithdrawn = 0.3\n[[fault]]\nkind = \"partition\"\nat = \"20s\"\nlasts = \"60s\"",
        ),
        (
            "long partition",
            6,
            "latency = \"25ms\"",
            "[workload]\nupdates = 6\nwithdrawn = 0.3\n[[fault]]\nkind = \"partition\"\nat = \"20s\"\nlasts = \"2d\"",
        ),
        (
            "churn",
            20,
            "latency = \"25ms\"",
            "[workload]\nupdates = 20\nrate = 1\n[[fault]]\nkind = \"churn\"\nat = \"10s\"\nshare = 0.2\nmean_off = \"30s\"\nlasts = \"120s\"",
        ),
        (
            "lost",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\n[[fault]]\nkind = \"crash\"\nat = \"30s\"\nshare = 0.5\nmemory = \"lost\"\nlasts = \"10s\"",
        ),
        (
            "backup",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\nrate = 1\nwithdrawn = 0.2\n[[fault]]\nkind = \"backup\"\nat = \"25s\"\nshare = 0.5\n[[fault]]\nkind = \"crash\"\nat = \"60s\"\nshare = 0.5\nmemory = \"backup\"\nlasts = \"10s\"",
        ),
        (
            "clock",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\nrate = 1\n[[fault]]\nkind = \"clock\"\nat = \"5s\"\nshare = 0.3\nerror = \"+1h\"\nlasts = \"60s\"",
        ),
        (
            "skew",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\nrate = 1\n[[fault]]\nkind = \"clock\"\nat = \"0s\"\nshare = 0.5\nerror = \"+3s\"",
        ),
        (
            "freeze",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\nrate = 1\n[[fault]]\nkind = \"freeze\"\nat = \"20s\"\nshare = 0.3\nlasts = \"40s\"\n[[fault]]\nkind = \"sleep\"\nat = \"30s\"\nlasts = \"5d\"",
        ),
        (
            "join",
            12,
            "latency = \"25ms\"",
            "[workload]\nupdates = 24\n[[fault]]\nkind = \"join\"\nat = \"60s\"\nnodes = 3",
        ),
    ] {
        let begun = std::time::Instant::now();
        let scenario = scenario(nodes, network, more);
        match play(&scenario, 1) {
            Ok(measured) => {
                println!("{name} {:.2?}\n{:?}\n{:?}", begun.elapsed(), measured.metrics, measured.curve.len())
            }
            Err(broken) => println!("{name} BROKEN {:.2?} {broken:?}", begun.elapsed()),
        }
    }
}
