//! Every engine does the same with any guest, and none crashes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let case = reprise_engines::case::Case::from_bytes(bytes);
    for (name, make) in reprise_engines::subjects() {
        if let Err(text) = reprise_engines::judge(make, &case) {
            panic!("{name}: {text}");
        }
    }
});
