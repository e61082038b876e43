//! The server against a viewer that was written from the RFC, and against nonsense.

use std::io::{self, Read, Write};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_display::picture::Picture;
use reprise_display::rfb::{Event, RfbError, Session};

#[path = "common/viewer.rs"]
#[allow(unreachable_pub, reason = "shared with tests of other crates")]
mod viewer;
use viewer::Viewer;

/// A session as the viewer's stream.
struct Wire {
    session: Session,
    picture: Picture,
    events: Vec<Event>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.session.output().is_empty() {
            self.session.update(&self.picture);
        }
        let n = buffer.len().min(self.session.output().len());
        buffer[..n].copy_from_slice(&self.session.output()[..n]);
        self.session.output().drain(..n);
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // In pieces, as it comes over a network.
        for piece in data.chunks(3) {
            self.session.feed(piece, &mut self.events).map_err(io::Error::other)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A picture with tiles of one, two, some and many colours.
fn picture(width: usize, height: usize, seed: u64) -> Picture {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut picture = Picture::black(width, height);
    for (n, tile) in (0..height).step_by(16).flat_map(|y| (0..width).step_by(16).map(move |x| (x, y))).enumerate() {
        let colours = [1, 2, 3, 5, 200][n / 7 % 5];
        for y in tile.1..height.min(tile.1 + 16) {
            for x in tile.0..width.min(tile.0 + 16) {
                let c: u8 = random.random_range(0..colours);
                picture.pixels[y * width + x] = [c, 255 - c, c.wrapping_mul(7)];
            }
        }
    }
    picture
}

fn connect(version: &[u8; 12], picture: Picture) -> Viewer<Wire> {
    let session = Session::new("a machine", picture.width, picture.height());
    Viewer::connect(Wire { session, picture, events: Vec::new() }, version).unwrap()
}

#[test]
fn each_version_and_encoding_shows_the_picture() {
    for version in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        for encoding in [0, 5, 6, 16] {
            let mut viewer = connect(version, picture(330, 150, 1));
            assert_eq!((viewer.width, viewer.height, viewer.name.as_str()), (330, 150, "a machine"));
            viewer.set_encodings(&[1234, encoding, 0]).unwrap();
            for seed in 2..5 {
                viewer.update(seed > 2).unwrap();
                assert_eq!(viewer.pixels, viewer.stream.picture.pixels, "encoding {encoding}");
                assert_eq!(viewer.rectangles.last(), Some(&encoding));
                viewer.stream.picture = picture(330, 150, seed);
            }
        }
    }
}

#[test]
fn only_changes_are_sent() {
    let mut viewer = connect(b"RFB 003.008\n", picture(330, 150, 1));
    viewer.update(true).unwrap();
    assert_eq!(viewer.pixels, viewer.stream.picture.pixels, "the first update has everything, whatever is asked for");
    viewer.rectangles.clear();
    viewer.stream.picture.pixels[330 * 70 + 200] = [1, 2, 3];
    viewer.update(true).unwrap();
    assert_eq!((viewer.rectangles.as_slice(), viewer.pixels[330 * 70 + 200]), (&[0][..], [1, 2, 3]));
    assert!(!viewer.stream.session.waits());
    // Nothing has changed: the answer comes when something does.
    viewer.stream.write_all(&[3, 1, 0, 0, 0, 0, 1, 74, 0, 150]).unwrap();
    let picture = viewer.stream.picture.clone();
    assert!(viewer.stream.session.waits() && !viewer.stream.session.update(&picture));
    viewer.stream.write_all(&[3, 0, 0, 0, 0, 0, 1, 74, 0, 150]).unwrap();
    assert!(viewer.stream.session.update(&picture), "all of it was asked for");
}

#[test]
fn the_screen_changes_its_size() {
    let mut viewer = connect(b"RFB 003.008\n", picture(100, 50, 1));
    viewer.set_encodings(&[16, -223]).unwrap();
    viewer.update(false).unwrap();
    viewer.stream.picture = picture(70, 90, 2);
    viewer.update(true).unwrap();
    assert_eq!((viewer.width, viewer.height), (70, 90));
    viewer.update(true).unwrap();
    assert_eq!(viewer.pixels, viewer.stream.picture.pixels);
    // Without the pseudo-encoding the size stays what it was at the beginning.
    let mut viewer = connect(b"RFB 003.008\n", picture(100, 50, 1));
    viewer.update(false).unwrap();
    viewer.stream.picture = picture(70, 90, 2);
    viewer.update(true).unwrap();
    assert_eq!(viewer.pixels, picture(70, 90, 2).sized(100, 50).pixels);
}

#[test]
fn what_the_user_does() {
    let mut viewer = connect(b"RFB 003.008\n", picture(100, 50, 1));
    viewer.key(0xff0d, true).unwrap();
    viewer.pointer(4, 99, 258).unwrap();
    // A clipboard is thrown away.
    viewer.stream.write_all(&[6, 0, 0, 0, 0, 0, 0, 5, 4, 1, 0, 0, 9]).unwrap();
    viewer.set_encodings(&[-258]).unwrap();
    viewer.update(true).unwrap();
    assert_eq!(viewer.rectangles, [-258]);
    viewer.stream.write_all(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e]).unwrap();
    let want = [
        Event::Key { down: true, symbol: 0xff0d, scan_code: None },
        Event::Pointer { buttons: 4, x: 99, y: 258 },
        Event::Key { down: true, symbol: 0x61, scan_code: Some(0x1e) },
    ];
    assert_eq!(viewer.stream.events, want);
}

#[test]
fn who_breaks_the_protocol_is_sent_away() {
    let feed = |bytes: &[&[u8]]| {
        let mut session = Session::new("x", 10, 10);
        bytes.concat().chunks(1).try_for_each(|b| session.feed(b, &mut Vec::new()))
    };
    let (hello, init) = (&b"RFB 003.008\n"[..], &[1, 1][..]);
    assert_eq!(feed(&[b"GET / HTTP/1.1\r\n"]), Err(RfbError::Version));
    assert_eq!(feed(&[hello, &[2]]), Err(RfbError::Security(2)));
    assert_eq!(feed(&[hello, init, &[99]]), Err(RfbError::Message(99)));
    assert_eq!(feed(&[hello, init, &[255]]), Err(RfbError::Message(255)), "extended keys were not agreed on");
    assert_eq!(feed(&[hello, init, &[2, 0, 255, 255]]), Err(RfbError::TooLong(4 + 4 * 65535)));
    assert_eq!(feed(&[hello, init, &[6, 0, 0, 0, 255, 255, 255, 255]]), Err(RfbError::TooLong(0xffff_ffff)));
    assert_eq!(feed(&[hello, init, &[0; 20]]), Err(RfbError::PixelFormat));
    assert_eq!(feed(&[hello, init, &[6, 0, 0, 0, 0, 16, 0, 0], &[7; 1 << 20], &[4, 0]]), Ok(()));
}

/// The same as the fuzz target `display_rfb`.
#[test]
fn random_bytes_never_panic() {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..2000 {
        let mut bytes = vec![0; random.random_range(0..400)];
        random.fill(&mut bytes[..]);
        // Most of what follows must be of a kind that exists to get anywhere.
        bytes.iter_mut().step_by(11).for_each(|b| *b %= 7);
        hostile::run(&bytes);
    }
}

#[path = "common/hostile.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzz target")]
mod hostile;
