//! Writes short texts and numbers one behind the other into room that is there already: what every answer to a limited request does.
//!
//! Decides nothing. A text that is known at load is kept in whole blocks, and a number is made of eight digits at once, so that both are
//! copied in pieces of a size that the compiler knows: a copy of any other is a call, which costs more than the few bytes of a limit's name.

/// Bytes that are copied at once.
const BLOCK: usize = 32;

/// A text in whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    blocks: Box<[[u8; BLOCK]]>,
    len: usize,
}

/// Where the next byte goes.
pub struct Pen<'a> {
    rest: &'a mut [u8],
    all: usize,
}

/// A number that is written more than once.
#[derive(Clone, Copy)]
pub struct Number {
    number: u64,
    /// None where it is too long.
    digits: u64,
    count: usize,
}

/// The most that [`Pen::number`] takes, and what it may touch behind that.
pub const NUMBER: usize = 20;

// === impl Piece ===

impl Piece {
    pub fn new(text: &[u8]) -> Piece {
        let blocks = text.chunks(BLOCK).map(|part| {
            let mut block = [0; BLOCK];
            block[..part.len()].copy_from_slice(part);
            block
        });
        Piece { blocks: blocks.collect(), len: text.len() }
    }

    /// The most that [`Pen::piece`] touches.
    pub fn room(&self) -> usize {
        self.blocks.len() * BLOCK
    }
}

// === impl Number ===

impl Number {
    #[inline(always)]
    pub fn new(number: u64) -> Number {
        let (digits, count) = if number < 100_000_000 { digits(number as u32) } else { (0, 0) };
        Number { number, digits, count }
    }
}

// === impl Pen ===

impl<'a> Pen<'a> {
    /// What does not fit is not written: whoever makes room counts it first.
    #[inline]
    pub fn new(room: &'a mut [u8]) -> Pen<'a> {
        Pen { all: room.len(), rest: room }
    }

    /// How much was written.
    #[inline]
    pub fn end(&self) -> usize {
        self.all - self.rest.len()
    }

    #[inline(always)]
    fn go_on(&mut self, by: usize) {
        self.rest = std::mem::take(&mut self.rest).get_mut(by..).unwrap_or_default();
    }

    #[inline(always)]
    pub fn text<const N: usize>(&mut self, text: &[u8; N]) {
        if let Some(room) = self.rest.first_chunk_mut::<N>() {
            *room = *text;
            self.go_on(N);
        }
    }

    #[inline(always)]
    pub fn piece(&mut self, piece: &Piece) {
        let mut behind = &mut *self.rest;
        for block in &piece.blocks {
            let Some((room, rest)) = behind.split_first_chunk_mut::<BLOCK>() else { return };
            *room = *block;
            behind = rest;
        }
        self.go_on(piece.len);
    }

    #[inline(always)]
    pub fn number(&mut self, number: u64) {
        match number {
            0..10 => self.text(&[b'0' + number as u8]),
            10..100_000_000 => {
                let (digits, count) = digits(number as u32);
                if let Some(room) = self.rest.first_chunk_mut::<8>() {
                    *room = digits.to_le_bytes();
                    self.go_on(count);
                }
            }
            _ => self.long_number(number),
        }
    }

    /// The same as [`number`](Pen::number).
    #[inline(always)]
    pub fn known(&mut self, number: Number) {
        match number.count {
            0 => self.long_number(number.number),
            count => {
                if let Some(room) = self.rest.first_chunk_mut::<8>() {
                    *room = number.digits.to_le_bytes();
                    self.go_on(count);
                }
            }
        }
    }

    #[cold]
    fn long_number(&mut self, number: u64) {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number).as_bytes();
        if let Some(room) = self.rest.get_mut(..text.len()) {
            room.copy_from_slice(text);
            self.go_on(text.len());
        }
    }
}

/// The digits of a number below 100,000,000, the first in the lowest byte, and how many there are. All are made at once: two halves of four
/// digits, four quarters of two, eight.
#[inline(always)]
fn digits(number: u32) -> (u64, usize) {
    let halves = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let quarters = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((quarters * 103) >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (quarters - tens * 10) << 8;
    // The last is one, whatever it is.
    let zeroes = (digits | 1 << 63).trailing_zeros() & !7;
    ((digits | 0x3030_3030_3030_3030) >> zeroes, 8 - (zeroes / 8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Pen<'_>), room: usize) -> Vec<u8> {
        let mut text = vec![0; room];
        let mut pen = Pen::new(&mut text);
        write(&mut pen);
        let end = pen.end();
        text.truncate(end);
        text
    }

    #[test]
    fn numbers_are_as_they_are_everywhere() {
        let edges = (0..19).flat_map(|zeroes| {
            let power = 10u64.pow(zeroes);
            [power - 1, power, power + 1, power * 9]
        });
        let steps = (0..1_000_000u64).map(|step| step * 104_729 % 1_000_000_007);
        for number in (0..20_000).chain(edges).chain(steps).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(written(|pen| pen.number(number), NUMBER), number.to_string().as_bytes());
            assert_eq!(written(|pen| pen.known(Number::new(number)), NUMBER), number.to_string().as_bytes());
        }
    }

    #[test]
    fn pieces_of_any_length_stand_behind_each_other() {
        for len in 0..100 {
            let text: Vec<u8> = (0..len).map(|byte| b'a' + byte % 26).collect();
            let piece = Piece::new(&text);
            let told = written(
                |pen| {
                    pen.piece(&piece);
                    pen.text(b"; ");
                    pen.piece(&piece);
                },
                2 * piece.room() + 2,
            );
            assert_eq!(told, [&text[..], b"; ", &text].concat());
        }
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let piece = Piece::new(b"abc");
        assert_eq!(written(|pen| pen.piece(&piece), 31), b"");
        assert_eq!(written(|pen| pen.text(b"abc"), 2), b"");
        assert_eq!(written(|pen| pen.number(12_345), 7), b"");
        assert_eq!(written(|pen| pen.number(u64::MAX), 19), b"");
    }
}
