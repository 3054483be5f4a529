//! Connections to one server that is asked often, such as an issuer about tokens: each is used again for the next question.
//!
//! Decides how many are kept and how long, and that a question is asked anew where a kept connection turns out to be over: only what may be
//! asked twice is asked here. A connection whose answer was not read to its end is never used again, so that no answer is another's.

use parking_lot::Mutex;
use tokio::time::timeout;

use super::client::{Connection, read};
use super::{Address, Question, Reply, Way};
use crate::clock;

/// Connections that wait for the next question.
const MOST: usize = 16;
/// How long one may wait: less than most servers keep one, so that it is seldom over.
const IDLE_NS: u64 = 30_000_000_000;

/// One server, and the connections to it.
pub struct Kept {
    address: Address,
    way: Way,
    /// The newest last, with when it was used.
    idle: Mutex<Vec<(Connection, u64)>>,
}

// === impl Kept ===

impl Kept {
    pub fn new(address: Address, way: Way) -> Self {
        Kept { address, way, idle: Mutex::default() }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The proxy in between.
    pub fn proxy(&self) -> Option<&Address> {
        self.way.proxy.as_ref()
    }

    /// Asks. Redirects are not followed. The question's address is this server's.
    ///
    /// # Errors
    /// What went wrong, for a person: names the server, never what was sent.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Reply, String> {
        // Given up at the deadline, a connection is dropped: its answer may still come.
        let Ok(answered) = timeout(question.deadline, self.ask_on(question)).await else {
            // What is between here and there may have forgotten the others, too.
            self.idle.lock().clear();
            return Err(format!("{}: no answer within {:?}", self.address, question.deadline));
        };
        let (reply, connection) = answered?;
        self.keep(connection);
        Ok(reply)
    }

    async fn ask_on(&self, question: &Question<'_>) -> Result<(Reply, Connection), String> {
        let (way, address) = (&self.way, &self.address);
        if let Some(mut connection) = self.ready().await
            // The server may be closing it at this moment: then it is asked once more.
            && let Ok(answer) = connection.put(way, question, address).await
        {
            return Ok((read(answer, question, address).await?, connection));
        }
        let mut connection = Connection::open(way, address).await?;
        let answer = connection.put(way, question, address).await?;
        Ok((read(answer, question, address).await?, connection))
    }

    /// One that the server has not closed.
    async fn ready(&self) -> Option<Connection> {
        loop {
            let mut connection = self.take()?;
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    /// The one that was used last.
    fn take(&self) -> Option<Connection> {
        let now = clock::mono();
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| now.saturating_sub(*since) < IDLE_NS);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST {
            idle.push((connection, clock::mono()));
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("address", &self.address).finish_non_exhaustive()
    }
}
