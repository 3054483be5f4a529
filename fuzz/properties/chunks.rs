//! Any bytes, as a chunked body: `listen/chunks.rs` finds the same end, or the same fault, however they are cut, and the end that
//! a plain decoder finds.

use sluice::listen::chunks::Chunks;

pub fn hold(data: &[u8]) {
    let whole = read(&[data]);
    for cut in super::cuts(data.len()) {
        let (first, second) = data.split_at(cut);
        assert_eq!(read(&[first, second]), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(read(&bytes), whole, "byte by byte");
    if let Ok(Some(end)) = whole {
        assert_eq!(plain(data), Some(end), "a plain decoder sees another end");
    }
}

/// How many bytes belong to the body; `None` where its end has not come.
fn read(pieces: &[&[u8]]) -> Result<Option<usize>, ()> {
    let (mut chunks, mut used) = (Chunks::default(), 0);
    for piece in pieces {
        let taken = chunks.feed(piece).map_err(drop)?;
        used += taken;
        if chunks.is_done() {
            return Ok(Some(used));
        }
        assert_eq!(taken, piece.len(), "bytes were left over before the end");
    }
    Ok(None)
}

/// RFC 9112 section 7.1, line by line and lenient.
fn plain(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: &mut usize| {
        let length = data.get(*at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &data[*at..*at + length];
        *at += length + 2;
        Some(line)
    };
    loop {
        let size = line(&mut at)?;
        let size = std::str::from_utf8(size.split(|byte| *byte == b';').next()?).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            while !line(&mut at)?.is_empty() {}
            return Some(at);
        }
        at += size;
        if !line(&mut at)?.is_empty() {
            return None;
        }
    }
}
