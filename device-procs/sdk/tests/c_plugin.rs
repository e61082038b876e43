//! A plugin written in C, through the loader and the conformance suite; and files that are no plugins.

use std::path::{Path, PathBuf};
use std::process::Command;

use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, LoadError, Plugin};
use reprise_device::spec::ReadPolicy;
use reprise_device::{Event, VTime};

/// Compiles a C file of `tests/c` into a shared object.
fn compile(dir: &Path, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = dir.join(name);
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(cc)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-O1", "-shared", "-fPIC"])
        .args(flags)
        .arg("-I")
        .arg(root.join("include"))
        .arg("-o")
        .arg(&out)
        .arg(root.join("tests/c").join(source))
        .status()
        .expect("a C compiler");
    assert!(status.success(), "{source} does not compile");
    out
}

fn load(path: &Path) -> Result<Plugin, LoadError> {
    // SAFETY: the file was made by this test.
    unsafe { Plugin::load(path) }
}

#[test]
fn a_plugin_in_c_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = load(&compile(dir.path(), "toy.c", "libtoy.so", &[])).unwrap();
    assert_eq!(plugin.kind(), "c-toy");
    let report = Suite::new(&plugin, "()").seeds(40).check();
    assert!(report.reads > 10_000, "{report:?}");
}

#[test]
fn a_plugin_in_c_works() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = load(&compile(dir.path(), "toy.c", "libtoy.so", &[])).unwrap();
    let error = plugin.create("(a: 1)").unwrap_err().to_string();
    assert!(error.contains("takes no config"), "{error}");
    let mut toy = plugin.create("()").unwrap();
    assert_eq!(toy.spec().read_policy(0, 4), ReadPolicy::Const(0x43));
    assert_eq!(toy.spec().posted(4, 4), Some(&[0][..]));
    let mut seen = Vec::new();
    let mut step = |now, event| {
        seen.clear();
        toy.step(VTime(now), event, &mut |e| seen.push(format!("{e:?}"))).unwrap();
        seen.join(" ")
    };
    step(0, Event::Reset);
    let write = |offset, value| Event::Write { tag: 0, offset, size: 4, value };
    assert_eq!(step(5, write(8, 3)), "Arm { id: 0, at: VTime(3005) }");
    let fired = step(3005, Event::Timer(0));
    assert_eq!(fired, "Publish { shadow: 1, value: 1 } Line { pin: 0, level: true }");
    assert_eq!(
        step(3006, Event::Host { port: 0, data: b"hi" }),
        "HostOut { port: 0, data: [104, 105] } HostWant { port: 0, bytes: 998 }"
    );
    let read = step(3007, Event::Read { tag: 9, offset: 0x10, size: 4 });
    assert!(read.ends_with("Reply { tag: 9, value: 2 }"), "{read}");
    assert!(step(3008, write(0x18, 0x100)).contains("DmaRange { addr: 256, len: 8 }"));
    assert!(step(3009, Event::DmaDone { tag: 1, data: b"abcdefgh" }).contains("Write { addr: 264"));
}

#[test]
fn a_plugin_that_breaks_its_spec_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = load(&compile(dir.path(), "toy.c", "libtoy.so", &["-DTOY_FAULT"])).unwrap();
    let mut toy = plugin.create("()").unwrap();
    let mut effects = 0;
    let mut count = |_: Effect<'_>| effects += 1;
    let fault = toy.step(VTime(0), Event::Write { tag: 0, offset: 0x1c, size: 4, value: 0 }, &mut count).unwrap_err();
    assert!(fault.0.contains("output pin 7 of 1"), "{fault}");
    assert_eq!(effects, 0);
}

#[test]
fn another_abi_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let old = compile(dir.path(), "toy.c", "libold.so", &["-DTOY_ABI_VERSION=0"]);
    assert_eq!(load(&old).unwrap_err(), LoadError::AbiVersion { found: 0, expected: 2 });
    let odd = compile(dir.path(), "toy.c", "libodd.so", &["-DTOY_EVENT_SIZE=8"]);
    let error = load(&odd).unwrap_err();
    assert!(matches!(error, LoadError::Size { what: "RepriseEvent", found: 8, .. }), "{error}");
    assert!(error.to_string().contains("rebuild"), "{error}");
    let none = compile(dir.path(), "empty.c", "libempty.so", &[]);
    assert!(matches!(load(&none).unwrap_err(), LoadError::NoEntry { .. }));
}

#[test]
fn a_file_that_is_no_shared_object_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("noise.so");
    let noise: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&path, noise).unwrap();
    let error = load(&path).unwrap_err();
    assert!(matches!(&error, LoadError::Open { .. }) && error.to_string().contains("noise.so"), "{error}");
    assert!(matches!(load(&dir.path().join("absent.so")).unwrap_err(), LoadError::Open { .. }));
}
