//! Decides which requests are sent to a second upstream as well, whose answers nobody gets.
//!
//! What the client gets, and when, does not depend on it: a copy is handed to a queue, and where that is full it is dropped and counted.
//! The copy has the head that the first upstream gets, and a mark ([`X_MIRRORED`]). Sent by `queue.rs`.

mod queue;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::queue::Mirrors;
use crate::config::diagnostic::Diagnostic;
use crate::config::plan::UpstreamPlan;
use crate::config::types::{At, Percent, Size};
use crate::entry::request_id::RequestId;
use crate::report::metrics::route::RouteSeries;

/// A second upstream that gets a copy of requests. What it answers is thrown away, and how long it takes matters to nobody.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorSettings {
    /// A name in `upstreams`, other than those of the route. It is spoken to as other requests would be: in its `protocol`, with TLS where it has that.
    pub upstream: At<String>,
    /// Of the requests that go upstream. Default 100%.
    pub share: Option<At<Percent>>,
    /// How large a request's body may be; one with a larger body is not mirrored. Default 64KiB, at most 1MiB.
    pub body: Option<At<Size>>,
}

/// As it runs.
#[derive(Debug)]
pub struct Mirror {
    upstream: Arc<UpstreamPlan>,
    share: Percent,
    body: usize,
    /// Of the route.
    series: Arc<RouteSeries>,
    queue: Arc<Mirrors>,
}

/// A copy in the making.
#[derive(Debug)]
pub struct Copy {
    mirror: Arc<Mirror>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<Bytes>,
    size: usize,
}

/// What became of a request that was to be mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// The other upstream has answered, whatever.
    Answered,
    /// It could not be reached, or did not answer in time.
    Failed,
    /// Too many copies wait already.
    QueueFull,
    BodyTooLarge,
    /// A WebSocket or a call of gRPC, or a path that only its own upstream may understand.
    Unfit,
}

/// Tells the other upstream that nobody waits for its answer, and whose request it was.
pub const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored-from");

const BODY: Size = Size(64 * 1024);
const LARGEST_BODY: Size = Size::mib(1);

/// What is wrong with it by itself, wherever it is written.
pub fn check(settings: &At<MirrorSettings>, wrong: &mut Vec<Diagnostic>) {
    let MirrorSettings { upstream: _, share, body } = &settings.value;
    if let Some(share) = share.as_ref().filter(|share| share.value.0 == 0) {
        let told = Diagnostic::at(&share.place, "out-of-range", "a share of nothing: expected more than 0%");
        wrong.push(told.help("remove `mirror` to have none"));
    }
    if let Some(body) = body.as_ref().filter(|body| body.value > LARGEST_BODY) {
        let message = format!("`{}` is out of range: expected at most {LARGEST_BODY}", body.value);
        wrong.push(Diagnostic::at(&body.place, "out-of-range", message).help("copies are held in memory until they are sent"));
    }
}

// === impl Mirror ===

impl Mirror {
    /// # Errors
    /// An upstream that gets no copies.
    pub fn compile(
        settings: &MirrorSettings,
        upstream: Arc<UpstreamPlan>,
        series: Arc<RouteSeries>,
        queue: Arc<Mirrors>,
    ) -> Result<Mirror, Vec<Diagnostic>> {
        let MirrorSettings { upstream: name, share, body } = settings;
        let tell = |message: String| Err(vec![Diagnostic::at(&name.place, "mirror", message).help("define another upstream for copies")]);
        let spoken = &upstream.pool.upstream;
        if spoken.proxy_protocol.is_some() {
            return tell(format!("`{}` is told the client first, and copies come from none", name.value));
        }
        let body = usize::try_from(body.as_ref().map_or(BODY, |body| body.value).0).unwrap_or(0);
        Ok(Mirror { upstream, share: share.as_ref().map_or(Percent(10_000), |share| share.value), body, series, queue })
    }

    pub fn upstream(&self) -> &str {
        &self.upstream.name
    }

    pub fn share(&self) -> Percent {
        self.share
    }

    pub fn body(&self) -> Size {
        Size(self.body as u64)
    }

    /// Whether the request is among the share.
    pub fn wants(&self, id: &RequestId) -> bool {
        self.share.0 == 10_000 || id.falls_into(self.share, b"mirror")
    }

    pub fn count(&self, what: Mirrored) {
        self.series.mirrored(what);
    }

    /// Begins a copy of a request with this head, which is that for the upstream `from`. None: there will be none, and that is counted.
    pub fn begin(self: &Arc<Self>, from: &str, head: &RequestHeader) -> Option<Copy> {
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > self.body as u64) {
            self.count(Mirrored::BodyTooLarge);
            return None;
        }
        let (Ok(uri), Ok(from)) = (Uri::try_from(head.raw_path()), HeaderValue::from_str(from)) else {
            self.count(Mirrored::Unfit);
            return None;
        };
        let mut headers = head.headers.clone();
        // The copy has its own framing.
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
            headers.remove(name);
        }
        headers.insert(X_MIRRORED, from);
        Some(Copy { mirror: self.clone(), method: head.method.clone(), uri, headers, body: Vec::new(), size: 0 })
    }
}

// === impl Copy ===

impl Copy {
    /// A piece of the body. False: it has become too large, which is counted.
    pub fn add(&mut self, piece: &Bytes) -> bool {
        self.size += piece.len();
        if self.size > self.mirror.body {
            self.mirror.count(Mirrored::BodyTooLarge);
            return false;
        }
        self.body.push(piece.clone());
        true
    }

    /// The request is whole.
    pub fn send(self) {
        let mirror = self.mirror.clone();
        if !mirror.queue.offer(self) {
            mirror.count(Mirrored::QueueFull);
        }
    }
}

// === impl Mirrored ===

impl Mirrored {
    pub const ALL: [Mirrored; 5] = [Mirrored::Answered, Mirrored::Failed, Mirrored::QueueFull, Mirrored::BodyTooLarge, Mirrored::Unfit];

    pub fn as_str(self) -> &'static str {
        match self {
            Mirrored::Answered => "answered",
            Mirrored::Failed => "failed",
            Mirrored::QueueFull => "queue-full",
            Mirrored::BodyTooLarge => "body-too-large",
            Mirrored::Unfit => "unfit",
        }
    }
}
