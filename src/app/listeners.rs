//! The two listeners, and how many connections each may have: so many that open files remain for the
//! store, the queue and the mail server, however many clients come.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::Router;
use crate::api::server::{self, Limits};
use crate::config::HttpSettings;
use crate::otp::network::Network;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

/// Connections of the operations listener: a few tools ask there.
const OPS_CONNECTIONS: usize = 256;
/// What a process opens that serves nobody, with room to spare: databases, listeners, Redis, the log.
const OWN_FILES: usize = 64;

/// Opens listeners.
pub struct Listeners {
    api: Limits,
    ops: Limits,
    telemetry: Arc<Telemetry>,
    shutdown: Shutdown,
}

impl Listeners {
    /// Raises the limit of open files as far as the process may and shares the files out.
    /// `mail_connections` is how many connections to mail servers there may be.
    pub fn new(telemetry: &Arc<Telemetry>, shutdown: &Shutdown, mail_connections: usize) -> Self {
        let files = raise_limit();
        // To find a mail server takes a file as well as to talk to it.
        let (api, ops) = share(files, OWN_FILES + 2 * mail_connections);
        if api.connections < Limits::default().connections {
            telemetry.files_are_few(files, api.connections);
        }
        Self {
            api,
            ops,
            telemetry: telemetry.clone(),
            shutdown: shutdown.clone(),
        }
    }

    /// Opens the public listener; answers with the address that it is, since port 0 is any.
    pub fn api(&self, http: &HttpSettings, router: Router) -> anyhow::Result<SocketAddr> {
        let proxies = http.trusted_proxies.clone();
        self.open(http.listen, "http.listen", router, self.api, proxies)
    }

    /// Opens the operations listener, in the same way.
    pub fn ops(&self, address: SocketAddr, router: Router) -> anyhow::Result<SocketAddr> {
        self.open(address, "ops.listen", router, self.ops, Vec::new())
    }

    fn open(
        &self,
        address: SocketAddr,
        setting: &str,
        router: Router,
        limits: Limits,
        proxies: Vec<Network>,
    ) -> anyhow::Result<SocketAddr> {
        let listener = server::bind(address)
            .with_context(|| format!("can't listen on {address}; change `{setting}`"))?;
        let bound = listener.local_addr()?;
        let (telemetry, stop) = (self.telemetry.clone(), self.shutdown.token());
        let served = server::serve(listener, router, limits, proxies, telemetry, stop);
        self.shutdown.spawn(served);
        Ok(bound)
    }
}

/// How many files the process may have open from now on.
fn raise_limit() -> usize {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    // A system that does not let it be raised after all leaves it as it was.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    current.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    })
}

/// Shares out what the process itself does not need, or half of the files where it may need most.
fn share(files: usize, needed: usize) -> (Limits, Limits) {
    let free = files.saturating_sub(needed).max(files / 2);
    let usual = Limits::default();
    let ops = OPS_CONNECTIONS.min(free / 8);
    let api = usual.connections.min(free - ops);
    let limits = |connections, of_one_peer| Limits {
        connections,
        of_one_peer,
        ..usual
    };
    (limits(api, api.div_ceil(4)), limits(ops, ops))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(files: usize, needed: usize) -> [usize; 3] {
        let (api, ops) = share(files, needed);
        [api.connections, api.of_one_peer, ops.connections]
    }

    #[test]
    fn files_remain_beside_all_connections() {
        assert_eq!(shared(usize::MAX, 164), [10_000, 2_500, 256]);
        assert_eq!(shared(1_024, 164), [753, 189, 107]);
        assert_eq!(shared(400, 64), [294, 74, 42]);
    }

    #[test]
    fn however_much_is_needed_clients_get_half() {
        assert_eq!(shared(1_024, 20_064), [448, 112, 64]);
    }
}
