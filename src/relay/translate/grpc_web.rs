//! Between gRPC-Web, which browsers speak, and gRPC, which upstreams speak.
//!
//! Decides what of head and body is changed each way: frames stay as they are, base64 is put on and taken off, trailers become the
//! last frame of the body. Does not look into messages, keeps at most three bytes of them, and does nothing to requests that are not gRPC-Web.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::relay::attempt::protocol::Protocol;
use crate::reply::grpc::{Speech, base64, trailer_frame};
use crate::reply::problem::Kind;

pub static GRPC_WEB_MALFORMED: Kind =
    Kind { code: "grpc-web-malformed", status: 400, error: "Bad request", about: "The body of a gRPC-Web request in text is not base64." };

/// gRPC. Calls over HTTP/2 need no key.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcSettings {
    /// Whether gRPC-Web, binary and text, is translated, so that pages can call. The upstream speaks gRPC.
    pub web: bool,
}

/// One call that is translated.
#[derive(Debug)]
pub struct Translation {
    speech: Speech,
    /// Characters of a group of four that is not complete.
    encoded: [u8; 4],
    encoded_len: usize,
    /// Bytes of a group of three that is not complete.
    plain: [u8; 3],
    plain_len: usize,
    frames: Frames,
}

/// Where in the frames of an answer the next byte stands.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 5],
    header_len: usize,
    left: u64,
}

const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");

/// Whether gRPC-Web is translated.
///
/// # Errors
/// Nothing is translated, or the upstream does not speak what it would be translated to.
pub fn compile(settings: &At<GrpcSettings>, upstream: Protocol) -> Result<bool, Vec<Diagnostic>> {
    let GrpcSettings { web } = settings.value;
    if !web {
        let message = "this changes nothing: calls over HTTP/2 need no key, and nothing else is translated";
        return Err(vec![Diagnostic::at(&settings.place, "inert", message).help("remove `grpc`, or write `web: true`")]);
    }
    match upstream {
        Protocol::Http1 => {
            let message = "the upstream of this route speaks HTTP/1.1, which cannot carry gRPC";
            Err(vec![Diagnostic::at(&settings.place, "grpc-upstream", message).help("give the upstream `protocol: h2`")])
        }
        Protocol::H2 | Protocol::Auto => Ok(true),
    }
}

/// The head of a call that goes upstream as gRPC's own.
pub fn request_head(speech: Speech, head: &mut RequestHeader) {
    // Servers take it for the sign of a client that knows trailers.
    let _ = head.insert_header(TE, "trailers");
    if speech == Speech::Native {
        return;
    }
    let kind = speech.content_type_upstream(head.headers.get(CONTENT_TYPE));
    let _ = head.insert_header(CONTENT_TYPE, kind);
    head.remove_header(&ACCEPT);
    head.remove_header(&X_GRPC_WEB);
    if speech == Speech::WebText {
        // Of the base64, which is longer.
        head.remove_header(&CONTENT_LENGTH);
    }
}

// === impl Translation ===

impl Translation {
    pub fn new(speech: Speech) -> Self {
        Translation { speech, encoded: [0; 4], encoded_len: 0, plain: [0; 3], plain_len: 0, frames: Frames::default() }
    }

    /// A piece of the request's body as the upstream gets it.
    ///
    /// # Errors
    /// It is not base64.
    pub fn request_part(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<(), &'static Kind> {
        if self.speech != Speech::WebText {
            return Ok(());
        }
        if let Some(text) = body.as_ref() {
            let mut plain = BytesMut::with_capacity(text.len() / 4 * 3 + 3);
            for byte in text.iter() {
                self.encoded[self.encoded_len] = *byte;
                self.encoded_len += 1;
                if self.encoded_len == 4 {
                    self.encoded_len = 0;
                    let mut group = [0; 3];
                    // A padded group may stand in the middle: each piece of a stream is padded by itself.
                    let count = STANDARD.decode_slice(self.encoded, &mut group).map_err(|_| &GRPC_WEB_MALFORMED)?;
                    plain.put_slice(&group[..count]);
                }
            }
            *body = Some(plain.freeze());
        }
        if end && self.encoded_len > 0 { Err(&GRPC_WEB_MALFORMED) } else { Ok(()) }
    }

    /// The head of the answer as the page gets it.
    pub fn answer_head(&self, head: &mut ResponseHeader) {
        let kind = head.headers.get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            // No gRPC: an error page of something in between.
            return;
        }
        let upstream = match kind.and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.strip_prefix("application/grpc")) {
            Some(codec) if codec.starts_with('+') => codec.to_owned(),
            Some(_) | None => String::new(),
        };
        let name = match self.speech {
            Speech::WebText => "application/grpc-web-text",
            Speech::Native | Speech::Web => "application/grpc-web",
        };
        let _ = head.insert_header(CONTENT_TYPE, format!("{name}{upstream}"));
        head.remove_header(&CONTENT_LENGTH);
    }

    /// A piece of the answer's body as the page gets it: base64 in whole groups, and to its end where a frame ends.
    pub fn answer_part(&mut self, body: &mut Option<Bytes>) {
        if self.speech != Speech::WebText {
            return;
        }
        let Some(mut bytes) = body.take() else { return };
        let mut text = BytesMut::with_capacity(bytes.len() / 3 * 4 + 8);
        while !bytes.is_empty() {
            let (count, is_end) = self.frames.next(&bytes);
            let piece = bytes.split_to(count);
            self.encode(&piece, is_end, &mut text);
        }
        *body = Some(text.freeze());
    }

    /// The trailers as the last frame of the body.
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Bytes {
        let frame = trailer_frame(trailers);
        match self.speech {
            Speech::Native | Speech::Web => frame,
            Speech::WebText => {
                let mut text = BytesMut::new();
                self.encode(&[], true, &mut text);
                text.put_slice(&base64(&frame));
                text.freeze()
            }
        }
    }

    fn encode(&mut self, mut bytes: &[u8], is_end: bool, text: &mut BytesMut) {
        if self.plain_len > 0 {
            let count = (3 - self.plain_len).min(bytes.len());
            self.plain[self.plain_len..self.plain_len + count].copy_from_slice(&bytes[..count]);
            self.plain_len += count;
            bytes = &bytes[count..];
            if self.plain_len == 3 || is_end {
                text.put_slice(STANDARD.encode(&self.plain[..self.plain_len]).as_bytes());
                self.plain_len = 0;
            }
        }
        if bytes.is_empty() {
            return;
        }
        let whole = if is_end { bytes.len() } else { bytes.len() / 3 * 3 };
        text.put_slice(STANDARD.encode(&bytes[..whole]).as_bytes());
        let rest = &bytes[whole..];
        self.plain[..rest.len()].copy_from_slice(rest);
        self.plain_len = rest.len();
    }
}

// === impl Frames ===

impl Frames {
    /// How many of these bytes belong to the frame that is under way, and whether it ends with them.
    fn next(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut count = 0;
        if self.left == 0 {
            count = (5 - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + count].copy_from_slice(&bytes[..count]);
            self.header_len += count;
            if self.header_len < 5 {
                return (count, false);
            }
            self.header_len = 0;
            let [_, length @ ..] = self.header;
            self.left = u64::from(u32::from_be_bytes(length));
        }
        let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - count);
        self.left -= payload as u64;
        (count + payload, self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn decode(text: &[u8]) -> Vec<u8> {
        // As clients do: groups of four, padding wherever it comes.
        text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
    }

    #[test]
    fn an_answer_in_text_is_the_same_frames_however_it_is_cut_and_nothing_of_a_message_is_held_back() {
        let all = [frame(b"a"), frame(b""), frame(b"hello"), frame(&[7; 1000])].concat();
        let trailers: HeaderMap = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect();
        for step in [1, 2, 3, 4, 5, 7, 64, 5000] {
            let mut translation = Translation::new(Speech::WebText);
            let mut text = Vec::new();
            for piece in all.chunks(step) {
                let mut body = Some(Bytes::copy_from_slice(piece));
                translation.answer_part(&mut body);
                text.extend_from_slice(&body.unwrap());
            }
            assert_eq!(translation.plain_len, 0, "the last message is out");
            assert_eq!(decode(&text), all, "by {step}");
            text.extend_from_slice(&translation.trailers(&trailers));
            assert_eq!(decode(&text), [&all[..], &[0x80, 0, 0, 0, 16], b"grpc-status: 0\r\n"].concat(), "by {step}");
        }
    }

    #[test]
    fn a_request_in_text_is_decoded_however_it_is_cut_and_padded() {
        let all = [frame(b"a"), frame(b"hello")].concat();
        let padded = [STANDARD.encode(&all[..4]), STANDARD.encode(&all[4..])].concat();
        for text in [STANDARD.encode(&all), padded] {
            for step in [1, 2, 3, 4, 5, 100] {
                let mut translation = Translation::new(Speech::WebText);
                let mut plain = Vec::new();
                for piece in text.as_bytes().chunks(step) {
                    let mut body = Some(Bytes::copy_from_slice(piece));
                    translation.request_part(&mut body, false).unwrap();
                    plain.extend_from_slice(&body.unwrap());
                }
                translation.request_part(&mut None, true).unwrap();
                assert_eq!(plain, all, "{text} by {step}");
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["AAA", "AA*A", "A===", "AAA\n", "====", "AB==\0"] {
            let mut translation = Translation::new(Speech::WebText);
            let told = translation.request_part(&mut Some(Bytes::copy_from_slice(text.as_bytes())), false);
            let told = told.and_then(|()| translation.request_part(&mut None, true));
            assert_eq!(told.unwrap_err().code, "grpc-web-malformed", "{text:?}");
        }
    }

    #[test]
    fn binary_passes_as_it_is() {
        let mut translation = Translation::new(Speech::Web);
        let mut body = Some(Bytes::from(frame(b"hello")));
        translation.request_part(&mut body, true).unwrap();
        translation.answer_part(&mut body);
        assert_eq!(body.unwrap(), frame(b"hello"));
    }

    #[test]
    fn heads_are_translated_and_only_those_of_grpc() {
        let mut head = RequestHeader::build("POST", b"/a.B/C", None).unwrap();
        for (name, value) in [
            ("content-type", "application/grpc-web-text+proto"),
            ("accept", "application/grpc-web-text"),
            ("x-grpc-web", "1"),
            ("content-length", "8"),
            ("grpc-timeout", "1S"),
        ] {
            head.append_header(name, value).unwrap();
        }
        request_head(Speech::WebText, &mut head);
        let shown: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(shown, ["content-type: application/grpc+proto", "te: trailers", "grpc-timeout: 1S"]);

        let translation = Translation::new(Speech::Web);
        let mut answer = ResponseHeader::build(200, None).unwrap();
        answer.insert_header("content-type", "application/grpc+proto").unwrap();
        translation.answer_head(&mut answer);
        assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
        let mut page = ResponseHeader::build(503, None).unwrap();
        page.insert_header("content-type", "text/html").unwrap();
        page.insert_header("content-length", "5").unwrap();
        translation.answer_head(&mut page);
        assert_eq!((page.headers["content-type"].as_bytes(), page.headers["content-length"].as_bytes()), (&b"text/html"[..], &b"5"[..]));
    }
}
