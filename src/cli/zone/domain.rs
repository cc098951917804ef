//! `aop zone dns` and `aop zone check`: a zone that has the name of a domain, and that domain's word for its key.
//!
//! A key is proved by a text at `_aop.ZONE` or by the same line at `https://ZONE/.well-known/aop-zone`. Nothing is believed by
//! itself: what a domain says becomes an anchor when the operator writes it into the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use reqwest::redirect::Policy;
use serde_json::json;

use super::zone;
use crate::api::{Status, Zones};
use crate::cli::args::{ZoneCheckArgs, ZoneDnsArgs};
use crate::cli::client::Client;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, print_json, write};
use crate::host::is_dialable_by_all;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;

/// The version of the line.
const VERSION: &str = "v=aop1";
/// Texts and lines that are looked at.
const LINES_MAX: usize = 10;
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: usize = 4_096;
/// How long either answer may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Seconds for which a proof and another record may be kept.
const PROOF_TTL: u32 = 300;
const TTL: u32 = 3_600;

/// `aop zone dns`.
pub(in crate::cli) fn dns(args: &ZoneDnsArgs, console: Console) -> Result<Exit, Failure> {
    let zone = domain(&args.zone)?;
    let client = Client::new(&args.client)?;
    let key = match &args.key {
        Some(key) => Some(key.parse::<PeerKey>().map_err(|error| Failure::plain(Exit::Usage, &error))?),
        None => {
            let zones: Zones = client.get("/v1/zones", &[])?;
            let known = zones.zones.into_iter().find(|known| known.zone == zone.as_str());
            known.and_then(|known| known.key?.parse().ok())
        }
    };
    let status: Status = client.get("/v1/status", &[])?;
    let records = records(&zone, key, &status.listen, args.http_name.as_deref());
    if args.client.json {
        let file = key.map(|key| json!({"url": well_known(&zone), "line": line(key)}));
        print_json(&json!({"zone": zone, "records": records, "file": file}))?;
        return Ok(Exit::Done);
    }
    for [what, record] in &records {
        write(&format!("; {what}\n{record}\n"))?;
    }
    match key {
        Some(key) => {
            console.print(&format!("or, for who cannot write DNS, this line at {}:", well_known(&zone)));
            console.print(&format!("  {}", line(key)));
        }
        None => console.print(&format!(
            "{zone} has no key here: make one with `aop zone init {zone} --out FILE`, or give --key"
        )),
    }
    if status.listen.iter().all(|address| !is_dialable_by_all(address)) {
        console
            .print("the node has no address that others can dial, so nothing leads to it: see `--announce`");
    }
    Ok(Exit::Done)
}

/// What is written into the zone file of the domain, each with what it is for.
fn records(
    zone: &ZoneName,
    key: Option<PeerKey>,
    listen: &[String],
    http_name: Option<&str>,
) -> Vec<[String; 2]> {
    let mut records = Vec::new();
    let mut add = |what: String, record: String| records.push([what, record]);
    if let Some(key) = key {
        add(format!("the key of {zone}"), format!("_aop.{zone}. {PROOF_TTL} IN TXT \"{}\"", line(key)));
    }
    for address in listen.iter().filter(|address| is_dialable_by_all(address)) {
        add(
            format!("where to begin: --bootstrap /dnsaddr/{zone}"),
            format!("_dnsaddr.{zone}. {PROOF_TTL} IN TXT \"dnsaddr={address}\""),
        );
    }
    if let Some(host) = http_name {
        let service = format!("{TTL} IN SVCB 1 {host}. alpn=h2 port=443");
        add("the manifest of its agents (ARD)".into(), format!("_entries._agents.{zone}. {service}"));
        add("the search of its agents (ARD)".into(), format!("_search._agents.{zone}. {service}"));
        add(
            "the catalogue of its agents (DNS-AID)".into(),
            format!("_catalog._agents.{zone}. {service} key65409=\"ai-catalog.json\""),
        );
    }
    records
}

fn line(key: PeerKey) -> String {
    format!("{VERSION}; k=ed25519; p={key}")
}

fn well_known(zone: &ZoneName) -> String {
    format!("https://{zone}/.well-known/aop-zone")
}

/// `aop zone check`.
pub(in crate::cli) fn check(args: &ZoneCheckArgs, console: Console) -> Result<Exit, Failure> {
    let zone = domain(&args.zone)?;
    let expected = args.key.as_deref().map(str::parse::<PeerKey>).transpose();
    let expected = expected.map_err(|error| Failure::plain(Exit::Usage, &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let (by_dns, by_file) = runtime.block_on(async {
        tokio::join!(texts(&zone, args.nameserver), file(&zone, args.nameserver.is_some()))
    });
    let named =
        |found: &Result<Vec<String>, String>| found.as_ref().map_or_else(|_| BTreeSet::new(), |it| keys(it));
    let (dns_keys, file_keys) = (named(&by_dns), named(&by_file));
    let all: BTreeSet<PeerKey> = dns_keys.union(&file_keys).copied().collect();
    let is_proved = expected.map_or(!all.is_empty(), |expected| all.contains(&expected));
    if args.json {
        let told = |keys: &BTreeSet<PeerKey>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        print_json(&json!({
            "zone": zone, "proved": is_proved, "keys": told(&all),
            "dns": {"keys": told(&dns_keys), "error": by_dns.err()},
            "file": {"keys": told(&file_keys), "error": by_file.err()},
        }))?;
        return Ok(if is_proved { Exit::Done } else { Exit::NotFound });
    }
    for (what, keys, found) in
        [(format!("_aop.{zone}"), &dns_keys, &by_dns), (well_known(&zone), &file_keys, &by_file)]
    {
        match found {
            Ok(_) if keys.is_empty() => console.print(&format!("{what} names no key")),
            Ok(_) => keys.iter().for_each(|key| console.print(&format!("{what} names {key}"))),
            Err(why) => console.print(&format!("{what}: {why}")),
        }
    }
    if !is_proved {
        let why = match expected {
            Some(expected) => format!("{zone} does not name the key {expected}"),
            None => format!("{zone} names no key"),
        };
        let fix = format!("whoever owns the domain places what `aop zone dns {zone}` prints");
        return Err(Failure::new(Exit::NotFound, why, fix));
    }
    let believed = all.iter().filter(|key| expected.is_none_or(|expected| expected == **key));
    let anchors: Vec<String> =
        believed.map(|key| format!("[[anchor]]\nzone = \"{zone}\"\nkey = \"{key}\"\n")).collect();
    if anchors.len() > 1 {
        console.print("it names several keys, and a zone has one anchor: choose one with --key");
    } else {
        console.print("to believe it, write this into the configuration of your nodes:");
    }
    write(&anchors.concat())?;
    Ok(Exit::Done)
}

/// The keys that lines name.
fn keys(lines: &[String]) -> BTreeSet<PeerKey> {
    let named = |line: &String| {
        let mut parts = line.split(';').map(str::trim);
        if parts.next() != Some(VERSION) {
            return None;
        }
        let (mut kind, mut key) = (None, None);
        for part in parts.filter(|part| !part.is_empty()) {
            match part.split_once('=')? {
                ("k", named) => kind = Some(named),
                ("p", named) => key = named.parse().ok(),
                // Later versions may say more.
                _ => {}
            }
        }
        key.filter(|_| kind == Some("ed25519"))
    };
    lines.iter().take(LINES_MAX).filter_map(named).collect()
}

/// The texts at the name of the proof.
async fn texts(zone: &ZoneName, nameserver: Option<SocketAddr>) -> Result<Vec<String>, String> {
    let resolver = match nameserver {
        None => TokioResolver::builder_tokio().and_then(|builder| builder.build()),
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
        }
    };
    let resolver = resolver.map_err(|error| format!("cannot ask the DNS: {error}"))?;
    // With a dot at its end, so that no search list makes another name of it.
    let lookup = tokio::time::timeout(TIME_MAX, resolver.txt_lookup(format!("_aop.{zone}.")));
    let lookup =
        lookup.await.map_err(|_| format!("the DNS did not answer within {} s", TIME_MAX.as_secs()))?;
    let lookup = lookup.map_err(|error| error.to_string())?;
    let texts = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
        _ => None,
    });
    Ok(texts.collect())
}

/// The lines of the file; who names a name server of his own tries things out, and is asked for no file.
async fn file(zone: &ZoneName, is_trial: bool) -> Result<Vec<String>, String> {
    if is_trial {
        return Err("not asked for, because a name server was given".into());
    }
    let client = reqwest::Client::builder().redirect(Policy::none()).timeout(TIME_MAX).build();
    let client = client.map_err(|error| error.to_string())?;
    let mut response =
        client.get(well_known(zone)).send().await.map_err(|error| error.without_url().to_string())?;
    if !response.status().is_success() {
        return Err(format!("the answer is {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        body.extend_from_slice(&part);
        if body.len() > FILE_BYTES_MAX {
            return Err(format!("the file has more than {FILE_BYTES_MAX} bytes"));
        }
    }
    Ok(String::from_utf8_lossy(&body).lines().map(str::to_owned).collect())
}

fn domain(text: &str) -> Result<ZoneName, Failure> {
    let zone = zone(text)?;
    if zone.is_root() {
        let fix = "name a zone that is a domain, such as `acme.org`";
        return Err(Failure::new(Exit::Usage, "the root is no domain, so no DNS speaks for it", fix));
    }
    Ok(zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    #[test]
    fn a_line_names_a_key_in_one_form_and_in_no_other() {
        let key = Identity::from_seed([7; 32]).key();
        let named = |line: String| keys(&[line]).contains(&key);
        assert!(named(line(key)) && named(format!("v=aop1;k=ed25519;p={key};x=later")));
        for other in [
            format!("v=aop2; k=ed25519; p={key}"),
            format!("k=ed25519; v=aop1; p={key}"),
            format!("v=aop1; p={key}"),
            format!("v=aop1; k=rsa; p={key}"),
            format!("v=aop1; k=ed25519; p={key}x"),
            format!("v=aop1; k=ed25519; {key}"),
            String::new(),
        ] {
            assert!(!named(other.clone()), "{other}");
        }
        let mut many = vec!["v=spf1 -all".to_owned(); LINES_MAX];
        many.push(line(key));
        assert!(keys(&many).is_empty(), "no more are looked at");
    }

    #[test]
    fn records_lead_to_what_others_can_reach() {
        let key = Identity::from_seed([7; 32]).key();
        let listen = [
            "/ip4/192.0.2.1/tcp/7401/p2p/x",
            "/ip4/127.0.0.1/tcp/7401",
            "/ip6/fe80::1/tcp/1",
            "/dns/a.example/tcp/1",
        ];
        let listen = listen.map(|it| it.replace("/p2p/x", &format!("/p2p/{key}")));
        let records = records(&"acme.org".parse().unwrap(), Some(key), &listen, Some("www.acme.org"));
        let text: Vec<&str> = records.iter().map(|[_, record]| record.as_str()).collect();
        assert_eq!(text[0], format!("_aop.acme.org. 300 IN TXT \"v=aop1; k=ed25519; p={key}\""));
        assert_eq!(
            text[1],
            format!("_dnsaddr.acme.org. 300 IN TXT \"dnsaddr=/ip4/192.0.2.1/tcp/7401/p2p/{key}\"")
        );
        assert!(text[2].contains("/dns/a.example/tcp/1"));
        assert_eq!(text[3], "_entries._agents.acme.org. 3600 IN SVCB 1 www.acme.org. alpn=h2 port=443");
        assert_eq!(text.len(), 6);
    }
}
