//! Bootstrap by name: `/dnsaddr`, as a domain's TXT records tell it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::lab::{HERE, Lab, PATIENCE, in_lab};

const A: u16 = 1;
const TXT: u16 = 16;

/// Data of records by name and type.
type Records = BTreeMap<(String, u16), Vec<Vec<u8>>>;

/// A name server on the bridge: of what it was not told it says that there is no such name.
struct NameServer(Arc<Mutex<Records>>);

impl NameServer {
    fn start(lab: &Lab) -> NameServer {
        lab.name_server(HERE);
        let records = Arc::<Mutex<Records>>::default();
        let socket = UdpSocket::bind((HERE, 53)).unwrap();
        let held = records.clone();
        thread::spawn(move || {
            let mut query = [0; 512];
            loop {
                let (length, asker) = socket.recv_from(&mut query).unwrap();
                let answer = answer(&query[..length], &held.lock().unwrap());
                socket.send_to(&answer, asker).unwrap();
            }
        });
        NameServer(records)
    }

    fn set(&self, name: &str, kind: u16, data: Vec<Vec<u8>>) {
        self.0.lock().unwrap().insert((name.into(), kind), data);
    }

    /// Where `/dnsaddr/NAME` leads.
    fn leads_to(&self, name: &str, addresses: &[String]) {
        let text = |address: &String| {
            let text = format!("dnsaddr={address}");
            [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
        };
        self.set(&format!("_dnsaddr.{name}"), TXT, addresses.iter().map(text).collect());
    }

    fn is_at(&self, name: &str, address: Ipv4Addr) {
        self.set(name, A, vec![address.octets().to_vec()]);
    }
}

/// RFC 1035, section 4: the query's id and question, and the records, none of which may be kept.
fn answer(query: &[u8], records: &Records) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let question = &query[12..at + 5];
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let found = records.get(&(labels.join("."), kind));
    let is_known = found.is_some() || records.keys().any(|(name, _)| *name == labels.join("."));
    // An authoritative answer; 3: there is no such name.
    let flags = [0x84, if is_known { 0 } else { 3 }];
    let count = found.map_or(0, |found| u8::try_from(found.len()).unwrap());
    let mut answer = [&query[..2], &flags, &[0, 1, 0, count, 0, 0, 0, 0], question].concat();
    for data in found.into_iter().flatten() {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        // The question's name, its type, the internet, seconds to keep it.
        answer.extend([&[0xc0, 12], &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0], &length, data].concat());
    }
    answer
}

/// The bootstrap addresses that a status says lead nowhere.
fn dead(status: &Value) -> Vec<String> {
    let told = status["problems"].as_array().unwrap().iter();
    let told = told.filter(|problem| problem["code"] == "bootstrap_unreachable");
    told.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_joins_by_the_name_that_leads_somewhere_and_follows_it_elsewhere() {
    in_lab(|lab| {
        let names = NameServer::start(lab);
        let seed = lab.host("seed", "203.0.113.2").node("");
        let nobody = format!("/ip4/203.0.113.99/tcp/7401/p2p/{}", seed.id);
        names.leads_to("gone.test", std::slice::from_ref(&nobody));
        names.leads_to("boot.test", &[nobody, format!("/dns4/seed.test/tcp/7401/p2p/{}", seed.id)]);
        names.is_at("seed.test", Ipv4Addr::new(203, 0, 113, 2));
        let listed = ["unknown.test", "gone.test", "boot.test"].map(|name| format!("/dnsaddr/{name}"));
        let arguments: String = listed.iter().map(|name| format!(" --bootstrap {name}")).collect();
        let node = lab.host("node", "203.0.113.3").node(&arguments);
        node.until_called(PATIENCE, &seed);
        let status = node.until(PATIENCE, "status", |status| dead(status).len() == 2);
        for (told, name) in dead(&status).iter().zip(&listed) {
            assert!(told.starts_with(&format!("bootstrap peer {name} cannot be reached: ")), "{told}");
        }

        // It is the same node, and knows nobody: what leads to it is its name.
        let key = seed.host.folder.join("data/node.key");
        seed.kill();
        names.is_at("seed.test", Ipv4Addr::new(203, 0, 113, 4));
        let moved = lab.host("moved", "203.0.113.4").node(&format!("--identity {}", key.display()));
        node.until_called(PATIENCE, &moved);
    });
}
