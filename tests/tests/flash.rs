//! NOR flash under Linux: Debian's kernel has no driver for it, so the guest does by hand what one would do.

use reprise_tests::{Rig, Run};

/// What the guest prints of a bank whose word at 0x80010 was this before.
fn expected(before: &str) -> Vec<String> {
    [
        &format!("kept {before}"),
        "query 0x00510051 0x00520052 0x00590059 0x00010001 size 0x00190019",
        "id 0x00890089 0x001D001D",
        "erase 0x00800080",
        "program 0x00800080",
        "buffer 0x00800080",
        "locked 0x00920092",
        "array 0xCAFE1234 0xFFFFFFFF 0x11110000 0x11110003 0xFFFFFFFF 0xFFFFFFFF",
        "bytes 0x34 0xCAFE",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn said(run: &Run) -> Vec<String> {
    let text = run.ended.text();
    let lines: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
    let at = lines.iter().position(|l| l == "RUN flash BEGIN").expect("it ran") + 1;
    lines[at..].iter().take_while(|l| !l.starts_with("RUN flash END")).cloned().collect()
}

#[test]
fn flash_keeps_what_was_programmed() {
    let rig = Rig::new();
    // A file that is shorter than the bank, with the block in question in it.
    let image = rig.image("flash.img", 2 << 20);
    let original = std::fs::read(&image).expect("readable");
    let word = u32::from_le_bytes(original[0x80010..0x80014].try_into().expect("4 bytes"));
    let machine = || {
        let mut c = rig.linux("run=flash flash=0x08000000");
        c.arg("--disk").arg(format!("flash0={}", image.display()));
        c
    };
    let first = rig.record("first", machine());
    assert_eq!(said(&first), expected(&format!("{word:#010X}").replace("0X", "0x")));
    let mut wanted = original;
    wanted[0x80000..0xc0000].fill(0xff);
    wanted[0x80010..0x80014].copy_from_slice(&0xcafe_1234u32.to_le_bytes());
    (0..4u32).for_each(|i| {
        let at = 0x80100 + 4 * i as usize;
        wanted[at..at + 4].copy_from_slice(&(0x1111_0000 + i).to_le_bytes());
    });
    assert!(std::fs::read(&image).expect("readable") == wanted, "the file holds what was programmed");
    rig.replay(&first.recording, &[]).exact(&first);
    rig.replay(&first.recording, &["--cpu-only", "--jitter", "1"]).exact(&first);
    let again = rig.record("again", machine());
    assert_eq!(said(&again), expected("0xCAFE1234"));
    rig.replay(&again.recording, &["--cpu-only"]).exact(&again);
}

#[test]
fn flash_without_a_file_is_erased() {
    let rig = Rig::new();
    let run = rig.record("a9", rig.linux_a9("console=ttyAMA0 quiet run=flash flash=0x44000000"));
    assert_eq!(said(&run), expected("0xFFFFFFFF"));
    rig.replay(&run.recording, &[]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}
