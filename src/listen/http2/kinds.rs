//! What connections and streams of HTTP/2 are refused with, beside the codes of heads.

use crate::reply::problem::Kind;

pub static STREAMS_TOO_MANY: Kind = Kind {
    code: "streams-too-many",
    status: 503,
    error: "Service unavailable",
    about: "A client opened more streams at once than `http2.streams`, and the one above was refused with REFUSED_STREAM (RFC 9113 section 5.1.2); the client may send it again. In the log only.",
};
pub static STREAM_MALFORMED: Kind = Kind {
    code: "stream-malformed",
    status: 400,
    error: "Bad request",
    about: "A header block is no request, such as names in upper case, connection-specific fields, doubled or missing pseudo-header fields or WebSocket over HTTP/2: its stream was reset with PROTOCOL_ERROR (RFC 9113 section 8.1.1). In the log only.",
};
pub static RESETS_TOO_MANY: Kind = Kind {
    code: "resets-too-many",
    status: 429,
    error: "Too many requests",
    about: "A client reset streams, or made the gateway reset them, more often than `http2.resets` (as in CVE-2023-44487 and CVE-2025-8671): its connection was ended with ENHANCE_YOUR_CALM. In the log only.",
};
pub static FRAMES_TOO_MANY: Kind = Kind {
    code: "frames-too-many",
    status: 429,
    error: "Too many requests",
    about: "A client sent more frames that ask for nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA) than `http2.frames`, or more than the frame layer bears: its connection was ended with ENHANCE_YOUR_CALM. In the log only.",
};
pub static HTTP2_INVALID: Kind = Kind {
    code: "http2-invalid",
    status: 400,
    error: "Bad request",
    about: "The frames of a client break the rules of HTTP/2, or its header compression is broken: its connection was ended with GOAWAY (RFC 9113 section 5.4.1). In the log only, with the reason that the client was told.",
};
