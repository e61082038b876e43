//! Random instructions on our engines and under qemu-arm, a newer QEMU than the one that Unicorn forked.

use reprise_oracle::generate::Choice;
use reprise_oracle::ours::Which;
use reprise_oracle::qemu;

#[test]
fn random_instructions_agree_with_qemu_arm() {
    let Some(program) = qemu::find() else {
        panic!("this test needs qemu-arm: install the package qemu-user (.ci/run does)")
    };
    let cases = if std::env::var_os("REPRISE_SLOW").is_some() { 400_000 } else { 40_000 };
    #[cfg(target_arch = "x86_64")]
    let engines = [(Which::Interp, 3), (Which::Jit, 4)];
    #[cfg(not(target_arch = "x86_64"))]
    let engines = [(Which::Interp, 3)];
    for (which, seed) in engines {
        let report = qemu::run(&program, which, seed, &Choice::default(), cases / 2).expect("qemu-arm runs");
        println!("{which:?}: {}", report.summary());
        assert_eq!(report.failed, 0, "{which:?}: {}\n{}", report.failures.join("\n"), report.summary());
        assert!(report.same * 3 > report.cases, "too few could be compared: {}", report.summary());
    }
}

#[test]
fn the_harness_is_what_its_source_says() {
    let cc = "arm-linux-gnueabihf-gcc";
    let dir = tempfile::tempdir().expect("a folder");
    let (source, out) = (concat!(env!("CARGO_MANIFEST_DIR"), "/harness/harness.S"), dir.path().join("harness.elf"));
    let status = std::process::Command::new(cc)
        .args(["-nostdlib", "-static", "-Wl,-Ttext=0x80400000,--build-id=none,-n,-s,-e,_start,-z,noexecstack", "-o"])
        .arg(&out)
        .arg(source)
        .status()
        .unwrap_or_else(|e| panic!("{cc}: {e}; .ci/run installs it"));
    assert!(status.success());
    let text = |elf: &[u8]| {
        let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().expect("four bytes")) as usize;
        elf[word(56)..word(56) + word(68)].to_vec()
    };
    let kept = include_bytes!("../harness/harness.elf");
    assert_eq!(text(&std::fs::read(out).expect("made")), text(kept), "assemble it anew with `cargo xtask hello`");
}
