//! A live node of this process with its HTTP server.

use std::net::SocketAddr;

use aop::host::Running;
use aop::http;
use aop::proto::address_block::TrustedNets;

/// A node that answers over HTTP, until it is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    _node: Running,
    _http: http::Server,
}

impl Server {
    pub(crate) async fn of(node: Running) -> Server {
        let settings = http::Settings {
            addr: ([127, 0, 0, 1], 0).into(),
            names: Vec::new(),
            trusted_nets: TrustedNets::default(),
            token: None,
            registry: http::RegistryAccess::Own,
        };
        let server = http::bind(settings).await.expect("bound").serve(node.handle.clone());
        let addr = server.url().trim_start_matches("http://").parse().expect("an address");
        Server { addr, _node: node, _http: server }
    }
}
