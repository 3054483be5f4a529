//! Decides how many of the process's descriptors connections of clients may take: half of them.
//!
//! Where descriptors run out, those who are served already need them (for upstreams), and so do probes and reloads; new
//! connections are closed and counted. The kernel always gives the lowest number that is free, so the number of a new socket
//! says how many are in use, and nothing needs to be counted.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

static MOST: OnceLock<i32> = OnceLock::new();

/// Raises the soft limit to the hard one: the soft one is low for the sake of programs that use `select`.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            log::warn!("the limit of open files cannot be raised: {e}");
        }
    }
}

/// The first number that is too high for the socket of a client.
fn most() -> i32 {
    *MOST.get_or_init(|| getrlimit(Resource::Nofile).current.and_then(|limit| i32::try_from(limit / 2).ok()).unwrap_or(i32::MAX))
}

/// Whether a client's connection with this descriptor leaves enough to the others.
pub fn is_spare(descriptor: i32) -> bool {
    descriptor < most()
}

/// Says so where listeners may have more connections than there are descriptors for.
pub fn compare(connections: u64) {
    let most = u64::try_from(most()).unwrap_or_default();
    if connections > most {
        log::warn!(
            "{connections} connections are allowed in all, but this process may open {} files and takes half of them for clients: \
             from about {most} on, new ones are turned away (raise LimitNOFILE= or `ulimit -n`)",
            most * 2
        );
    }
}
