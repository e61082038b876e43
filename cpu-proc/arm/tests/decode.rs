//! The tables against the expected assembler text of a sample of encodings, and the lookup's own properties.

use reprise_arm::decode::{A32, Space, T16, T32, coverage, disassemble_a32, disassemble_thumb};

fn check(file: &str, disassemble: fn(u32) -> Option<String>) {
    let mut wrong = Vec::new();
    for line in file.lines() {
        let (word, text) = line.split_once(' ').expect("`hex text`");
        let w = u32::from_str_radix(word, 16).expect("hex");
        let ours = disassemble(w).unwrap_or_else(|| "unknown".into());
        if ours != text {
            wrong.push(format!("{word} is `{text}`, not `{ours}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a32_decodes_to_the_expected_text() {
    check(include_str!("data/a32.txt"), disassemble_a32);
}

#[test]
fn thumb_decodes_to_the_expected_text() {
    check(include_str!("data/thumb.txt"), |w| disassemble_thumb(w, 14));
}

/// What the build script checks by its overlap rule, seen from outside: a line's own pattern finds that line, or an earlier one of its group.
#[test]
fn every_line_is_reachable() {
    for space in [&A32, &T32, &T16] {
        let unreachable: Vec<_> = space.lines.iter().filter(|l| !reachable(space, l.name)).map(|l| l.name).collect();
        assert!(unreachable.is_empty(), "{}: {unreachable:?}", space.name);
    }
}

fn reachable(space: &Space, name: &str) -> bool {
    // A fixed mix of values for the free bits.
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..20_000).any(|_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let l = space.lines.iter().find(|l| l.name == name).expect("named");
        let free = (x >> 32) as u32 & !l.mask & if space.name == "t16" { 0xffff } else { u32::MAX };
        space.lookup(l.value | free).is_some_and(|f| f.name == name)
    })
}

#[test]
fn undefined_space_is_undefined() {
    // A hole of the media space, a parallel operation without a prefix, and unconditional space.
    for w in [0xe7f00030, 0xe6000010, 0xf7f000f0] {
        assert!(A32.lookup(w).is_none(), "{w:#x}");
    }
}

#[test]
fn names_are_unique_in_their_space() {
    let mut seen = std::collections::BTreeSet::new();
    let twice: Vec<_> = coverage().filter(|c| !seen.insert(*c)).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // The integer core's lines and those of floating point, in each space.
    for (space, name) in [("a32", "ldrexd"), ("t32", "ldrexd"), ("t16", "cbz"), ("a32", "vmov2"), ("t32", "vmov2")] {
        assert!(seen.contains(&(space, name)), "{space} {name}");
    }
}
