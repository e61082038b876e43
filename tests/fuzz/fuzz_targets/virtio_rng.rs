//! A hostile driver of a virtio device: rings and buffers with any content.

#![no_main]

use plugin_virtio_rng::Rng;
use reprise_virtio::Virtio;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    reprise_virtio::testing::hostile::<Virtio<Rng>>("()", &[8], script);
});
