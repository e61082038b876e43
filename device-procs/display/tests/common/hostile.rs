//! A viewer, and a device that describes its screen, that send whatever they like.

use reprise_display::keys::{self, Pointer};
use reprise_display::picture::View;
use reprise_display::rfb::{Event, Session};

/// The first half is the device's, the second the viewer's.
pub fn run(bytes: &[u8]) {
    let (device, viewer) = bytes.split_at(bytes.len() / 2);
    let mut view = View::default();
    // A small screen: what it costs to be large is known.
    view.describe(&[1, 0, 24, 0, 70, 0, 40, 0, 35, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    if device.get(5).is_none_or(|high| *high == 0) && device.get(7).is_none_or(|high| *high == 0) {
        view.describe(device);
    }
    let mut session = Session::new("x", 64, 48);
    let mut pointer = Pointer::default();
    for start in [&b"RFB 003.008\n\x01\x01"[..], b"RFB 003.003\n\x01", b""] {
        let mut events = Vec::new();
        let mut fed = session.feed(start, &mut events);
        for piece in viewer.chunks(29) {
            fed = fed.and_then(|()| session.feed(piece, &mut events));
            session.update(view.look(|_, buffer| buffer.len() / 2));
        }
        session.output().clear();
        for event in events {
            match event {
                Event::Key { symbol, scan_code, .. } => {
                    let code = scan_code.and_then(keys::of_scan_code).or_else(|| keys::of_symbol(symbol));
                    assert!(code.is_none_or(|c| c <= keys::LAST));
                }
                Event::Pointer { buttons, x, y } => assert_eq!(pointer.events(buttons, x, y).len() % 8, 0),
            }
        }
        session = Session::new("x", 64, 48);
    }
}
