//! Decides what a server of gRPC says of its health: `grpc.health.v1`, a question of one text and an answer of one number.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use super::probe::Answer;

pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckRequest { service }`, as a message of gRPC. The empty name is the whole server.
pub(super) fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, text; the configuration bounds it to 127 bytes, which one byte of length holds.
        message.put_u8(0x0a);
        message.put_u8(service.len() as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// Healthy is a call that ended with status 0 and said SERVING.
pub(super) fn judge(answer: &Answer) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("answered {}", answer.status));
    }
    let status = |headers: &HeaderMap| headers.get("grpc-status").map(HeaderValue::as_bytes).map(<[u8]>::to_vec);
    match answer.trailers.as_ref().and_then(status).or_else(|| status(&answer.headers)).as_deref() {
        Some(b"0") => {}
        // NOT_FOUND.
        Some(b"5") => return Err("the server does not know the service".to_owned()),
        Some(b"12") => return Err("the server has no health service".to_owned()),
        Some(other) => return Err(format!("grpc-status {}", String::from_utf8_lossy(other).chars().take(3).collect::<String>())),
        None => return Err("the answer is not gRPC".to_owned()),
    }
    match serving(&answer.body) {
        Some(1) => Ok(()),
        Some(0) => Err("the service says UNKNOWN".to_owned()),
        Some(2) => Err("the service says NOT_SERVING".to_owned()),
        Some(3) => Err("the service says SERVICE_UNKNOWN".to_owned()),
        Some(_) | None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// `HealthCheckResponse { status }`. No field is 0.
fn serving(body: &[u8]) -> Option<u8> {
    let (head, message) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    let message = message.get(..usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    match message {
        [] => Some(0),
        // Field 1, number, of one byte.
        [0x08, status] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn only_serving_is_healthy() {
        let of = |grpc: &'static str, body: &[u8]| {
            let trailers = Some(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(grpc))]));
            judge(&Answer { status: 200, headers: HeaderMap::new(), body: body.into(), trailers })
        };
        assert_eq!(of("0", &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert_eq!(of("0", &[0, 0, 0, 0, 2, 8, 2]), Err("the service says NOT_SERVING".to_owned()));
        assert_eq!(of("0", &[0, 0, 0, 0, 0]), Err("the service says UNKNOWN".to_owned()));
        assert_eq!(of("5", &[]), Err("the server does not know the service".to_owned()));
        assert_eq!(of("14", &[]), Err("grpc-status 14".to_owned()));
        for wrong in [&[][..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 2, 16, 1]] {
            assert_eq!(of("0", wrong), Err("the answer is no HealthCheckResponse".to_owned()), "{wrong:?}");
        }
        let plain = Answer { status: 200, headers: HeaderMap::new(), body: BytesMut::new(), trailers: None };
        assert_eq!(judge(&plain), Err("the answer is not gRPC".to_owned()));
    }
}
