//! What a monitor says of itself (VESA E-EDID Standard, release A, revision 2).

/// Bytes of a block.
pub(crate) const BLOCK: usize = 128;

const HEADER: [u8; 8] = [0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];

/// A digital monitor of 1024x768 pixels at 60 Hz, which takes 640x480 and 800x600 as well.
pub(crate) fn builtin() -> [u8; BLOCK] {
    let mut e = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| e[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &HEADER);
    // Manufacturer "RPS" (three letters of 5 bits), product 0x0400, serial number 1, week 1 of 2026, EDID 1.3.
    put(8, &[0x4a, 0x13, 0x00, 0x04, 0x01, 0x00, 0x00, 0x00, 1, 36, 1, 3]);
    // Digital, 32 by 24 cm, gamma 2.2, RGB, the first detailed timing is the preferred one.
    put(20, &[0x81, 32, 24, 120, 0x0a]);
    // sRGB.
    put(25, &[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    // Established timings: 640x480, 800x600 and 1024x768 at 60 Hz. Standard timings: the last one, and none.
    put(35, &[0x21, 0x08, 0x00, 0x61, 0x40, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    // 65 MHz; 1024 of 1344 pixels and 768 of 806 lines; sync after 24 pixels for 136, after 3 lines for 6; 320 by 240 mm; both negative.
    put(54, &[0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 24, 136, 0x36, 0x00, 0x40, 0xf0, 0x10, 0, 0, 0x18]);
    put(72, b"\0\0\0\xfc\0Reprise\n     ");
    // Range: 50 to 75 Hz, 30 to 62 kHz, up to 80 MHz.
    put(90, b"\0\0\0\xfd\0\x32\x4b\x1e\x3e\x08\0\n      ");
    // No fourth descriptor.
    put(108, &[0, 0, 0, 0x10]);
    e[BLOCK - 1] = sum(&e).wrapping_neg();
    e
}

/// The sum of a block, which is 0 when its last byte is right.
pub(crate) fn sum(block: &[u8]) -> u8 {
    block.iter().fold(0, |sum, b| sum.wrapping_add(*b))
}

/// Reads one or two blocks from hexadecimal digits.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if digits.len() != 2 * BLOCK && digits.len() != 4 * BLOCK {
        return Err(format!("an EDID has 256 or 512 hexadecimal digits, not {}", digits.len()));
    }
    let digit = |d: u8| char::from(d).to_digit(16).ok_or_else(|| format!("{:?} is no digit", char::from(d)));
    let byte = |pair: &[u8]| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    let bytes = digits.chunks_exact(2).map(byte).collect::<Result<Vec<u8>, String>>()?;
    if bytes[..8] != HEADER {
        return Err("an EDID begins with 00ffffffffffff00".into());
    }
    match bytes.chunks(BLOCK).position(|b| sum(b) != 0) {
        Some(n) => Err(format!("the checksum of block {n} is wrong")),
        None => Ok(bytes),
    }
}
