//! Disassembles words given as hexadecimal arguments: `disas [-t] WORD...`; `-t` for Thumb (wide ones as first halfword then second).

use reprise_arm::decode::{disassemble_a32, disassemble_thumb};

fn main() {
    let mut thumb = false;
    for arg in std::env::args().skip(1) {
        if arg == "-t" {
            thumb = true;
            continue;
        }
        let w = u32::from_str_radix(&arg, 16).unwrap_or_else(|_| panic!("`{arg}` is no hexadecimal word"));
        let text = if thumb { disassemble_thumb(w, 14) } else { disassemble_a32(w) };
        println!("{arg} {}", text.unwrap_or_else(|| "unknown".into()));
    }
}
