//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod hostile;
pub(crate) mod talk;

use std::sync::atomic::{AtomicU32, Ordering};

use reprise_channel::{ChannelConfig, ChannelSegment, ControlConfig, ControlSegment};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A segment name that no other test uses.
pub(crate) fn fresh_name() -> String {
    format!("reprise-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A small channel, so that rings and arenas wrap often.
pub(crate) fn small_channel(tap: bool) -> ChannelSegment {
    let sizes = ChannelConfig { request_slots: 8, event_slots: 8, request_arena: 256, event_arena: 256, ..config(tap) };
    ChannelSegment::create(&fresh_name(), &sizes).expect("shared memory is available")
}

/// The default sizes.
pub(crate) fn config(tap: bool) -> ChannelConfig {
    ChannelConfig::new(3, "uart0", tap)
}

/// A small control segment.
pub(crate) fn small_control() -> ControlSegment {
    let sizes = ControlConfig { journal_slots: 8, script_slots: 8, script_arena: 256 };
    ControlSegment::create(&fresh_name(), &sizes).expect("shared memory is available")
}
