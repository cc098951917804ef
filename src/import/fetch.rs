//! One GET after the other: bounded in bytes, time, redirects and patience.
//!
//! Whoever answers may send this host elsewhere, and so may what he lists. To the origin that the operator named this host goes
//! whatever its address is, and with the operator's headers; to any other only by https, without them, and only where the name
//! leads to a public address: a stranger must not have this host look around in its own network.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde_json::Value;

use super::Failed;
use crate::agents::web::{builder, chain, wait_asked};
use crate::net::addresses::{PublicAddresses, is_public};

/// Longest wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time for one page, to its last byte.
const PAGE_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest page, bytes: a hundred documents of the largest size have a third of it.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Redirects of one page.
const REDIRECTS_MAX: usize = 5;
/// How often a page is asked for where the registry asks to wait.
const TRIES_MAX: usize = 3;
/// The longest wait that is sat out; for a longer one the reading ends, and begins anew then.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Asks an origin, and whatever public place that names.
pub(super) struct Fetcher {
    origin: Url,
    headers: Vec<(String, String)>,
    /// For the origin.
    own: Client,
    /// For any other.
    public: Client,
}

impl Fetcher {
    pub(super) fn new(origin: &Url, headers: &[(String, String)]) -> Result<Fetcher, Failed> {
        let set = |builder: reqwest::ClientBuilder| {
            builder
                // Followed by hand, because each leads to a place that is judged.
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_TIME_MAX)
                .timeout(PAGE_TIME_MAX)
                .user_agent(concat!("aop/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| Failed::new(format!("this host cannot ask it: {}", chain(&error))))
        };
        Ok(Fetcher {
            origin: origin.clone(),
            headers: headers.to_vec(),
            own: set(builder(origin))?,
            // A proxy would resolve the name itself, to whatever address.
            public: set(Client::builder().no_proxy().https_only(true).dns_resolver(PublicAddresses))?,
        })
    }

    /// The JSON document at an address. A registry that asks to wait is waited for, within bounds.
    pub(super) async fn json(&self, url: &Url) -> Result<Value, Failed> {
        self.json_within(url, PAGE_BYTES_MAX).await
    }

    /// As [`Fetcher::json`], of at most so many bytes.
    pub(super) async fn json_within(&self, url: &Url, bytes_max: usize) -> Result<Value, Failed> {
        for attempt in 1.. {
            let failed = match self.get(url, bytes_max).await {
                Ok(body) => return parse(&body),
                Err(failed) => failed,
            };
            match failed.retry_after {
                Some(wait) if wait <= WAIT_MAX && attempt < TRIES_MAX => tokio::time::sleep(wait).await,
                _ => return Err(failed),
            }
        }
        unreachable!("a page is asked for until it came or failed")
    }

    async fn get(&self, url: &Url, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.ask(&url).await?;
            let status = response.status();
            if status.is_redirection() {
                let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
                let target = target.and_then(|target| url.join(target).ok());
                url = target.ok_or_else(|| Failed::new("it redirects and does not say where to"))?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(refused(&response));
            }
            return read(response, bytes_max).await;
        }
        Err(Failed::new(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    async fn ask(&self, url: &Url) -> Result<Response, Failed> {
        let request = if url.origin() == self.origin.origin() {
            let request = self.own.get(url.clone());
            self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        } else {
            check_public(url)?;
            self.public.get(url.clone())
        };
        request.header("accept", "application/json").send().await.map_err(unsent)
    }
}

/// A place that somebody else named: addresses are judged here, names when they are resolved.
fn check_public(url: &Url) -> Result<(), Failed> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_private = host.parse::<IpAddr>().is_ok_and(|address| !is_public(address));
    match url.scheme() == "https" && !is_private {
        true => Ok(()),
        false => Err(Failed::new(
            "it leads to another origin that is private or without TLS, where a stranger must not send this host; \
             give that address yourself if you mean it",
        )),
    }
}

fn unsent(error: reqwest::Error) -> Failed {
    let what = match error.is_timeout() {
        true => format!("no answer came within {} s", PAGE_TIME_MAX.as_secs()),
        // What the operator named is for him alone.
        false => format!("it cannot be reached: {}", chain(&error.without_url())),
    };
    Failed::new(what)
}

fn refused(response: &Response) -> Failed {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    let waits = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    let retry_after = after.and_then(wait_asked).filter(|_| waits);
    let wait = retry_after.map(|wait| format!(", and asks to wait {} s", wait.as_secs())).unwrap_or_default();
    let failed = Failed { retry_after, ..Failed::new(format!("it answered {status}{wait}")) };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failed {
            message: format!("{}; give what it asks for as `header_env` of an `[[import]]`", failed.message),
            ..failed
        },
        StatusCode::TOO_MANY_REQUESTS => failed,
        status if status.is_client_error() => failed.elsewhere(),
        _ => failed,
    }
}

async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| match error.is_timeout() {
        true => unsent(error),
        false => Failed::new(format!("an answer broke off: {}", chain(&error.without_url()))),
    })? {
        // Counted as it comes: an announced length may be wrong or missing.
        if body.len() + part.len() > bytes_max {
            let message = format!("an answer has more than {bytes_max} bytes, as many as are read");
            return Err(Failed::new(message));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn parse(body: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(body).map_err(|error| {
        let message = match body.trim_ascii_start().first() {
            Some(b'<') => "it answered with a page for people (HTML) and not with JSON".to_owned(),
            _ => format!("its answer is not JSON: {error}"),
        };
        Failed::new(message).elsewhere()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_sends_this_host_to_public_places_alone() {
        let leads = |url: &str| check_public(&url.parse().unwrap()).is_ok();
        for public in ["https://a.example/x", "https://192.0.32.10/", "https://[2a00:1450::1]/"] {
            assert!(leads(public), "{public}");
        }
        for private in [
            "http://a.example/",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
            "https://0.0.0.0/",
            "https://100.64.0.1/",
            "https://2130706433/",
            "ftp://a.example/",
        ] {
            assert!(!leads(private), "{private}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_as_what_it_is() {
        assert!(parse(b" <html>").unwrap_err().message.contains("HTML"));
        assert!(parse(b"{").unwrap_err().message.contains("not JSON"));
        assert!(parse(b"{}").is_ok());
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(parse(&deep).is_err());
    }
}
