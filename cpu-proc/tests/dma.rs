//! Transfers between a device and RAM that is seen at a second address: they reach the same memory, and engines hear of what was written by RAM's own
//! addresses, by which they know their translations.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use cpu_proc::board::{Board, DmaAccess, Region, Target};
use cpu_proc::clock::Clock;
use cpu_proc::link::Link;
use cpu_proc::port::{Effect, Incoming, Port, PortError};
use reprise_arm::bus::{At, Bus, GuestRam, RamAlias};
use reprise_arm::gic::{Gic, GicConfig};
use reprise_channel::Request;
use reprise_device::device::DmaRange;
use reprise_device::dma::{self, Write};

const DEVICE: u64 = 0x1000_0000;
const RAM: u64 = 0x8000_0000;
const ALIAS: u64 = 0x4000_0000;

/// A device that asks for one transfer at each write of a register, and keeps what it read.
struct Mover {
    sent: u64,
    queue: VecDeque<Incoming>,
    asks: Vec<u8>,
    got: Rc<RefCell<Vec<u8>>>,
}

impl Port for Mover {
    fn send(&mut self, _: u64, request: Request<'_>) -> Result<u64, PortError> {
        let cause = self.sent;
        self.sent += 1;
        if let Request::DmaDone { data, .. } = request {
            *self.got.borrow_mut() = data.to_vec();
        }
        let transfer =
            matches!(request, Request::Write { .. }).then(|| Effect::Dma { tag: 1, data: self.asks.clone() });
        let effects = transfer.into_iter().chain([Effect::Ack]);
        self.queue.extend(effects.map(|effect| Incoming::Effect { cause, effect, check: 0 }));
        Ok(cause)
    }

    fn next_if(&mut self, accept: &mut dyn FnMut(&Incoming) -> bool) -> Result<Option<Incoming>, PortError> {
        Ok(if self.queue.front().is_some_and(accept) { self.queue.pop_front() } else { None })
    }

    fn wait(&mut self) -> Result<(), PortError> {
        panic!("all answers are there");
    }

    fn passed(&mut self, _: u64) -> Result<bool, PortError> {
        Ok(true)
    }

    fn wait_passed(&mut self, _: u64) -> Result<(), PortError> {
        Ok(())
    }
}

#[test]
fn a_transfer_at_the_alias_is_one_of_ram() {
    let mut memory = vec![0u64; 0x4000].into_boxed_slice();
    // SAFETY: the box outlives the board and is touched only through this.
    let ram = unsafe { GuestRam::new(memory.as_mut_ptr().cast(), RAM, 0x2_0000) };
    let ram = ram.with_aliases(&[RamAlias { at: ALIAS, size: 0x1_0000, offset: 0x1_0000 }]);
    ram.write(RAM + 0x1_0010, b"from RAM").expect("in RAM");
    let (reads, data) = ([DmaRange { addr: ALIAS + 0x10, len: 8 }], *b"to the alias");
    let writes = [Write { addr: ALIAS + 0xffa, data: &data, origin: None }];
    let asks = dma::encode(1, &reads, &writes).expect("a good transfer");
    let got = Rc::default();
    let port = Mover { sent: 0, queue: VecDeque::new(), asks, got: Rc::clone(&got) };
    let link = Link::new("mover".into(), port, Vec::new(), Vec::new(), false);
    let map = vec![Region { start: DEVICE, size: 0x1000, target: Target::Device(0) }];
    let gic = Gic::new(GicConfig::cortex_a15(1, 32));
    let mut board = Board::new(Clock::new(1, 1), gic, vec![link], map, Vec::new());
    board.dma = Some(DmaAccess { ram, grants: vec![vec![(RAM, 0x2_0000), (ALIAS, 0x1_0000)]] });
    let after = board.write(At { icount: 0, pc: 0, secure: true }, DEVICE, 4, 1).expect("mapped");
    assert!(board.error.is_none() && after.wrote, "{:?}", board.error);
    assert_eq!(*got.borrow(), b"from RAM");
    let mut seen = [0; 12];
    ram.read(RAM + 0x1_0ffa, &mut seen).expect("in RAM");
    assert_eq!(&seen, b"to the alias");
    let mut written = Vec::new();
    board.take_dma_writes(&ram, &mut written);
    assert_eq!(written, [(RAM + 0x1_0ffa, 6), (RAM + 0x1_1000, 6)]);
}
