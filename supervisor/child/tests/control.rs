//! The control protocol over a real socket.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};
use reprise_child::control::{
    Blame, CpuFinished, DeviceState, EndReason, FromChild, LogFinished, PluginInfo, Ready, RecordedEnd, StopReason,
    ToChild, Totals,
};
use reprise_child::{ControlError, Peer, pair};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A message's packets as a child would send them.
fn packets(message: &FromChild) -> Vec<Vec<u8>> {
    let body = postcard::to_stdvec(message).unwrap();
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    bytes.chunks(32 << 10).map(<[u8]>::to_vec).collect()
}

fn send_raw(fd: &OwnedFd, packet: &[u8]) {
    send(fd.as_raw_fd(), packet, MsgFlags::empty()).unwrap();
}

fn all_messages() -> Vec<FromChild> {
    let finished = CpuFinished {
        reason: EndReason::Poweroff,
        text: "bye".into(),
        position: (1, 2, 3),
        icount: u64::MAX,
        vtime: 4,
        state_hash: [7; 32],
        expected_hash: Some([8; 32]),
        figures: Vec::new(),
    };
    let plugin = PluginInfo { abi: 1, kind: "pl011".into(), version: "1.0".into() };
    let registers = vec![("MIDR".into(), 0x414f_c0f0)];
    vec![
        FromChild::Violation { syscall: 257 },
        FromChild::Ready(Ready { spec: vec![1, 2, 3], plugin: Some(plugin), id_registers: registers }),
        FromChild::Finished(finished),
        FromChild::State(DeviceState { state: vec![9; 300_000], output_bytes: 5, output_hash: [1; 32] }),
        FromChild::LogFinished(LogFinished {
            chunks: 3,
            recorded: Some(RecordedEnd::default()),
            cut: true,
            ..LogFinished::default()
        }),
        FromChild::Diverged { text: "expected 1".into() },
        FromChild::LogFailed { text: "disk full".into() },
        FromChild::Note { text: "note".into() },
        FromChild::Fatal { text: "x".into(), blame: Blame::Config(1, 2) },
    ]
}

#[test]
fn every_message_arrives_whole_and_in_order() {
    let (mut peer, child) = pair().unwrap();
    let messages = all_messages();
    let sent = messages.clone();
    let sender = std::thread::spawn(move || {
        for message in &sent {
            packets(message).iter().for_each(|p| send_raw(&child, p));
        }
    });
    for message in &messages {
        assert_eq!(peer.receive_until(soon()).unwrap(), *message);
    }
    sender.join().unwrap();
    assert!(matches!(peer.receive_until(soon()), Err(ControlError::Closed)));
}

#[test]
fn what_the_supervisor_says_can_be_read_back() {
    let (peer, child) = pair().unwrap();
    let totals = Totals { device_hash: [3; 32], console_hash: [4; 32], console_bytes: 5 };
    for message in [ToChild::Go, ToChild::Stop(StopReason::User), ToChild::Save, ToChild::Finish(totals), ToChild::Exit]
    {
        peer.send(&message).unwrap();
        let mut buffer = [0; 4096];
        let n = recv(child.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(u32::from_le_bytes(buffer[..4].try_into().unwrap()) as usize, n - 4);
        assert_eq!(postcard::from_bytes::<ToChild>(&buffer[4..n]).unwrap(), message);
    }
    drop(child);
    assert!(matches!(peer.send(&ToChild::Go), Err(ControlError::Closed)));
}

#[test]
fn nonsense_is_an_error_and_costs_nothing() {
    let nonsense = |packet: &[u8]| {
        let (mut peer, child) = pair().unwrap();
        send_raw(&child, packet);
        peer.receive_until(soon())
    };
    assert!(matches!(nonsense(b"abc"), Err(ControlError::Nonsense(_))));
    assert!(matches!(nonsense(&u32::MAX.to_le_bytes()), Err(ControlError::TooLarge(_))));
    assert!(matches!(nonsense(b"\x01\0\0\0\xff"), Err(ControlError::Nonsense(_))));
    assert!(matches!(nonsense(b"\x01\0\0\0\0\0\0"), Err(ControlError::Nonsense(_))), "longer than it says");
    // A length within a message that promises more than there is.
    assert!(matches!(nonsense(b"\x06\0\0\0\x05\xff\xff\xff\xff\x0f"), Err(ControlError::Nonsense(_))));
    // A good message with bytes behind it.
    let mut long = packets(&FromChild::Note { text: "x".into() }).remove(0);
    long.push(0);
    long[0] += 1;
    assert!(matches!(nonsense(&long), Err(ControlError::Nonsense(_))));
}

#[test]
fn a_message_that_never_ends_is_waited_for_only_so_long() {
    let (mut peer, child) = pair().unwrap();
    send_raw(&child, b"\xff\0\0\0begun");
    assert!(peer.try_receive().unwrap().is_none());
    assert!(matches!(peer.receive_until(Instant::now() + Duration::from_millis(20)), Err(ControlError::Io(_))));
}

#[test]
fn noise_never_panics() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for _ in 0..2000 {
        let (mut peer, child): (Peer, OwnedFd) = pair().unwrap();
        let len = next() as usize % 64 + 1;
        let mut packet = (len as u32).to_le_bytes().to_vec();
        packet.extend((0..len).map(|_| next() as u8));
        packet[4] %= 12;
        send_raw(&child, &packet);
        drop(child);
        refused += usize::from(peer.try_receive().is_err());
    }
    assert!(refused > 1000, "most noise is no message, but only {refused} were refused");
}
