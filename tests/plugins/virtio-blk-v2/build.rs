//! The library that this one is made from has an entry point of its own; the linker is to take the first, which is this one's.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,--allow-multiple-definition");
    println!("cargo:rerun-if-changed=build.rs");
}
