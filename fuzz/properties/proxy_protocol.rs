//! Any bytes, as the beginning of a connection: `listen/proxy_protocol.rs` reads the same header, or the same fault, however they come,
//! takes nothing that belongs to what follows, and lets no control character through.

use sluice::listen::proxy_protocol::{MOST_BYTES, Read, read};

pub fn hold(data: &[u8]) {
    let whole = read(data);
    for cut in super::cuts(data.len()) {
        let part = read(&data[..cut]);
        assert!(part == Read::Incomplete || part == whole, "cut at {cut}: {part:?}, then {whole:?}");
    }
    let Read::Header(said) = whole else { return };
    assert!(said.length <= data.len().min(MOST_BYTES));
    assert_eq!(read(&data[..said.length]), Read::Header(said.clone()), "what follows is not part of it");
    if said.length > 0 {
        assert_eq!(read(&data[..said.length - 1]), Read::Incomplete, "it has no byte too many");
    }
    if let Some(tls) = said.tls {
        let client = tls.client.as_deref().map_or("", |client| &client.subject);
        for text in [&*tls.version, &*tls.cipher, tls.server_name.as_deref().unwrap_or_default(), client] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}
