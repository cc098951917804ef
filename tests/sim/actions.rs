//! What tests do with a world of nodes.

use aop::proto::io::{Command, Input, Output, Reply};
use aop::proto::name::AgentName;
use aop::proto::query::{Find, Found};
use aop::sim::{ClientOp, World};

/// A number that whoever runs the tests gave.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lets time pass, under all checks.
pub(crate) fn run(world: &mut World, for_ms: u64) {
    world.run(for_ms).unwrap_or_else(|violation| panic!("{violation}"));
}

/// Heals everything and waits until all agree.
pub(crate) fn settle(world: &mut World) {
    world.settle().unwrap_or_else(|violation| panic!("{violation}"));
}

pub(crate) fn name(name: &str) -> AgentName {
    name.parse().expect("a label")
}

pub(crate) fn offer(label: &str, text: &str) -> ClientOp {
    ClientOp::Offer(vec![(name(label), text.into())])
}

/// Each of some machines offers `agent-N`.
pub(crate) fn offer_one_each(world: &mut World, machines: usize) {
    for machine in 0..machines {
        world.submit(machine, offer(&format!("agent-{machine}"), "text"));
    }
}

/// Each of some machines offers `kept-N` and `deleted-N`, and after a while withdraws the second.
pub(crate) fn offer_and_withdraw(world: &mut World, machines: usize, wait_ms: u64) {
    for machine in 0..machines {
        world.submit(machine, offer(&format!("kept-{machine}"), "text"));
        world.submit(machine, offer(&format!("deleted-{machine}"), "text"));
    }
    run(world, wait_ms);
    for machine in 0..machines {
        world.submit(machine, ClientOp::Withdraw(name(&format!("deleted-{machine}"))));
    }
    run(world, wait_ms);
}

/// Full names of all agents a machine serves.
pub(crate) fn names(world: &mut World, machine: usize) -> Vec<String> {
    agents(world, machine).iter().map(|found| found.record.name.to_string()).collect()
}

/// All agents a machine serves.
pub(crate) fn agents(world: &mut World, machine: usize) -> Vec<Found> {
    let Some((node, now)) = world.node(machine) else { return Vec::new() };
    // Of what it holds alone: that is answered at once.
    let find = Find { limit: 10_000, local: true, ..Find::default() };
    node.handle(now, Input::Command { id: 0, command: Command::List(find) });
    match node.poll_output() {
        Some(Output::Reply { reply: Reply::Found(answer), .. }) => answer.found,
        other => panic!("{other:?}"),
    }
}
