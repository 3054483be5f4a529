//! Listening sockets: made, kept for the next hand-over, taken over by whoever listens on the same address next.
//!
//! Decides that one address has one socket as long as anybody wants it: a listener that is renamed, or changes places with
//! another, keeps the queue of those who are connecting. Does not accept: see `workers.rs`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::workers::{Copies, Workers};
use crate::config::plan::ListenerPlan;
use crate::listen::accept::bind;
use crate::listen::address::Address;
use crate::listen::caps::Open;
use crate::listen::running::RunningListener;
use crate::listen::socket_file::{self, Access, SocketFile};

/// A listener that is open. The socket is a copy, for the next process and the next snapshot.
pub struct OpenListener {
    pub socket: TcpListener,
    pub address: Address,
    pub listener: Arc<RunningListener>,
    /// Of a Unix socket.
    file: Option<SocketFile>,
}

/// A listener that can be opened without a chance of failure.
pub struct Prepared {
    pub open: OpenListener,
    copies: Copies,
}

// === impl Prepared ===

impl Prepared {
    /// `found` is the socket of its address, where there is one already.
    ///
    /// # Errors
    /// The address cannot be listened on, or there are no descriptors left.
    pub fn new(
        slot: usize,
        plan: &ListenerPlan,
        open: &Arc<Open>,
        found: Option<TcpListener>,
        workers: &Workers,
    ) -> Result<Prepared, String> {
        let who = format!("listener {}", plan.name);
        let (socket, file) = match (found, plan.address) {
            (Some(socket), Address::Ip(_)) => (socket, None),
            (Some(socket), Address::Unix(path)) => (socket, SocketFile::found(path.path())),
            (None, Address::Ip(address)) => (listen(&who, address)?, None),
            (None, Address::Unix(path)) => {
                let bound = socket_file::bind(path.path(), &plan.settings.access);
                bound.map_err(|e| format!("{who}: cannot listen on {}: {e}\n", plan.address))?
            }
        };
        let listener = RunningListener::new(plan.name.clone(), slot, plan.settings.clone(), open.clone(), plan.series.clone());
        let copies = workers.copies(&socket).map_err(|e| format!("listener {}: {e}\n", plan.name))?;
        Ok(Prepared { open: OpenListener { socket, address: plan.address, listener, file }, copies })
    }

    /// Begins to accept.
    pub fn accept(self, workers: &Workers) -> OpenListener {
        workers.accept(self.copies, &self.open.listener);
        self.open
    }
}

// === impl OpenListener ===

impl OpenListener {
    /// Stops accepting; open connections are told to go.
    pub fn close(self) -> Arc<RunningListener> {
        self.listener.stop_accepting();
        self.listener.close_connections();
        self.listener
    }

    /// Another listens on it: the file of the socket stays.
    pub fn keep_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.keep();
        }
    }

    /// The file as the settings want it now.
    pub fn apply_access(&self, access: &Access) {
        if let Address::Unix(path) = self.address
            && let Err(e) = access.apply(path.path())
        {
            log::error!("{}: {e}", self.address);
        }
    }
}

/// Listens on an address; the error names who wanted to.
pub fn listen(who: &str, address: SocketAddr) -> Result<TcpListener, String> {
    bind(address).map_err(|e| format!("{who}: cannot listen on {address}: {e}\n"))
}
