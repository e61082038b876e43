//! The machine round a display, for the tests of displays: guest time, the interrupt, the timer that is armed, and what the screen is said to be.

use crate::device::{Device, Event, VTime};
use crate::host::{Effect, Instance, Plugin};
use crate::screen::Screen;

/// A display with one interrupt and one timer.
#[derive(Debug)]
pub struct Rig {
    /// The device.
    pub device: Instance,
    /// Guest time.
    pub now: VTime,
    /// The interrupt's level.
    pub irq: bool,
    /// When the timer is due.
    pub armed: Option<VTime>,
    /// What it has said of its screen.
    pub screen: Screen,
    /// In how many bytes.
    pub said: usize,
}

impl Rig {
    /// A device that has been reset.
    ///
    /// # Panics
    /// If the config is wrong.
    #[must_use]
    pub fn new<D: Device>(config: &str) -> Self {
        let device = Plugin::of::<D>().create(config).expect("a good config");
        let mut rig = Self { device, now: VTime(0), irq: false, armed: None, screen: Screen::default(), said: 0 };
        rig.step(Event::Reset);
        rig
    }

    /// Hands the device an event; what it replied.
    ///
    /// # Panics
    /// If the device faults.
    pub fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, now, irq, armed, screen, said } = self;
        let mut replied = 0;
        if let Event::Timer(_) = event {
            *armed = None;
        }
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { level, .. } => *irq = level,
            Effect::Arm { at, .. } => *armed = Some(at),
            Effect::Disarm { .. } => *armed = None,
            Effect::HostOut { data, .. } => {
                screen.feed(data);
                *said += data.len();
            }
            _ => {}
        };
        device.step(*now, event, &mut effect).expect("no fault");
        replied
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u64 {
        self.step(Event::Read { tag: 0, offset, size: 4 })
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u64) {
        self.step(Event::Write { tag: 0, offset, size: 4, value });
    }

    /// Lets guest time pass, in ns, with the timer's events in it.
    pub fn pass(&mut self, ns: u64) {
        let end = self.now.after(ns);
        while let Some(at) = self.armed.filter(|&at| at <= end) {
            self.now = at;
            self.step(Event::Timer(0));
        }
        self.now = end;
    }
}
