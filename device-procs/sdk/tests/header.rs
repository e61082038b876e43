//! The checked-in C header is the one that the Rust definitions make.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_src(root.join("src/abi.rs")).with_config(config).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let header = root.join("include/reprise_device.h");
    if std::env::var_os("REPRISE_BLESS").is_some() {
        std::fs::write(&header, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(kept == made, "include/reprise_device.h differs from src/abi.rs: run this test with REPRISE_BLESS=1 set");
}
