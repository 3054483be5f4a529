//! An answer that goes on, line by line, such as a watch of Kubernetes.
//!
//! Decides how long a line may be and how long may be waited for it. Does not decide what a line says.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::client::{Connection, send};
use super::{Question, Way};

/// What follows the head of an answer.
pub struct Lines {
    pub status: StatusCode,
    body: Incoming,
    held: BytesMut,
    /// How much of what is held has no end of a line.
    searched: usize,
    largest: usize,
    _connection: Connection,
}

/// Asks. The deadline is for the head of the answer, the largest size for one line. Redirects are not followed.
///
/// # Errors
/// What went wrong, for a person: names the server, never what was sent.
pub async fn follow_lines(way: &Way, question: &Question<'_>) -> Result<Lines, String> {
    let address = question.address;
    let asked = timeout(question.deadline, send(way, question, address)).await;
    let (answer, connection) = asked.map_err(|_| format!("{address}: no answer within {:?}", question.deadline))??;
    let (head, body) = answer.into_parts();
    Ok(Lines { status: head.status, body, held: BytesMut::new(), searched: 0, largest: question.largest, _connection: connection })
}

// === impl Lines ===

impl Lines {
    /// The next line without its end; none where the server has ended its answer. May be given up and asked for again: nothing is lost.
    ///
    /// # Errors
    /// The connection broke, nothing came for so long, or the line is too long.
    pub async fn next(&mut self, within: Duration) -> Result<Option<BytesMut>, String> {
        loop {
            if let Some(end) = self.held[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(self.searched + end);
                self.held.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.held.len();
            if self.held.len() > self.largest {
                return Err(format!("a line is longer than {} bytes", self.largest));
            }
            match timeout(within, self.body.frame()).await {
                Err(_) => return Err(format!("nothing came within {within:?}")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(e))) => return Err(format!("the answer broke off: {e}")),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.held.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
