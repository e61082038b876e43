//! The MAC, the PHY behind it and the EEPROM: registers that are reached through others.

use serde::{Deserialize, Serialize};

use crate::spec::{BUSY, MAC_LOADED, mac_cr};

/// Indices of the MAC's registers (table 5-4).
mod csr {
    pub(super) const CR: usize = 1;
    pub(super) const ADDRH: usize = 2;
    pub(super) const ADDRL: usize = 3;
    pub(super) const HASHH: usize = 4;
    pub(super) const HASHL: usize = 5;
    pub(super) const MII_ACC: usize = 6;
    pub(super) const MII_DATA: usize = 7;
    pub(super) const COUNT: usize = 13;
}

/// Indices of the PHY's registers (table 5-5).
mod phy {
    pub(super) const CONTROL: usize = 0;
    pub(super) const STATUS: usize = 1;
    pub(super) const ID1: usize = 2;
    pub(super) const ID2: usize = 3;
    pub(super) const ADVERTISED: usize = 4;
    pub(super) const PARTNER: usize = 5;
    pub(super) const EXPANSION: usize = 6;
    pub(super) const MODE: usize = 17;
    /// What wants to interrupt, and what may.
    pub(super) const SOURCE: usize = 29;
    pub(super) const MASK: usize = 30;
    pub(super) const SPECIAL: usize = 31;
    pub(super) const RESET_BIT: u16 = 1 << 15;
    pub(super) const LOOPBACK: u16 = 1 << 14;
    pub(super) const RESTART: u16 = 1 << 9;
    pub(super) const POWER_DOWN: u16 = 1 << 11;
    /// In SOURCE and MASK: there is energy on the wire, negotiation is done, the link went down.
    pub(super) const ENERGY: u16 = 1 << 7;
    pub(super) const NEGOTIATED: u16 = 1 << 6;
    pub(super) const LINK_DOWN: u16 = 1 << 4;
    /// Kept in the place of STATUS, which is made when it is read: the cable is out; the link went down since STATUS was read last.
    pub(super) const OUT: u16 = 1;
    pub(super) const WENT_DOWN: u16 = 1 << 1;
}

/// The internal PHY's address.
const PHY: u32 = 1;
/// Bytes of the EEPROM.
const EEPROM: usize = 128;
/// What its first byte is if an address follows.
const PROGRAMMED: u8 = 0xa5;

/// State of the MAC, the PHY and the EEPROM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac {
    csr: Vec<u32>,
    phy: Vec<u16>,
    eeprom: Vec<u8>,
    writable: bool,
    e2p_cmd: u32,
    e2p_data: u8,
}

/// Whether a frame is for this station, and how it came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    No,
    Yes,
    /// Only because everything is.
    Promiscuous,
}

impl Mac {
    pub(crate) fn new(address: [u8; 6]) -> Self {
        let mut eeprom = vec![0xff; EEPROM];
        eeprom[0] = PROGRAMMED;
        eeprom[1..7].copy_from_slice(&address);
        let mut mac =
            Self { csr: vec![0; csr::COUNT], phy: vec![0; 32], eeprom, writable: false, e2p_cmd: 0, e2p_data: 0 };
        mac.reset();
        mac
    }

    /// A soft reset: the EEPROM keeps what it has.
    pub(crate) fn reset(&mut self) {
        self.csr.fill(0);
        self.csr[csr::CR] = 0x0004_0000;
        (self.writable, self.e2p_cmd, self.e2p_data) = (false, 0, 0);
        self.phy_reset();
        self.load();
    }

    pub(crate) fn check(&self) -> bool {
        self.csr.len() == csr::COUNT
            && self.phy.len() == 32
            && self.eeprom.len() == EEPROM
            && self.csr[csr::CR] & !mac_cr::WRITABLE == 0
            && self.e2p_cmd & BUSY == 0
    }

    /// The address that the EEPROM holds goes to the MAC's registers (3.9).
    fn load(&mut self) {
        let e = &self.eeprom;
        if e[0] == PROGRAMMED {
            self.csr[csr::ADDRL] = u32::from_le_bytes([e[1], e[2], e[3], e[4]]);
            self.csr[csr::ADDRH] = u32::from(u16::from_le_bytes([e[5], e[6]]));
            self.e2p_cmd |= MAC_LOADED;
        } else {
            self.e2p_cmd &= !MAC_LOADED;
        }
    }

    fn phy_reset(&mut self) {
        let cable = self.phy[phy::STATUS] & phy::OUT;
        self.phy.fill(0);
        self.phy[phy::STATUS] = cable;
        self.phy[phy::CONTROL] = 0x3000;
        self.phy[phy::ADVERTISED] = 0x01e1;
    }

    /// The cable is plugged in or pulled.
    pub(crate) fn plug(&mut self, plugged: bool) {
        if plugged == self.plugged() {
            return;
        }
        self.phy[phy::STATUS] = match plugged {
            true => self.phy[phy::STATUS] & !phy::OUT,
            false => phy::OUT | phy::WENT_DOWN,
        };
        if self.phy[phy::CONTROL] & phy::POWER_DOWN == 0 {
            self.phy[phy::SOURCE] |= if plugged { phy::ENERGY | phy::NEGOTIATED } else { phy::LINK_DOWN };
        }
    }

    /// Whether it is plugged in.
    pub(crate) fn plugged(&self) -> bool {
        self.phy[phy::STATUS] & phy::OUT == 0
    }

    /// Whether the PHY wants to interrupt, and may.
    pub(crate) fn phy_interrupts(&self) -> bool {
        self.phy[phy::SOURCE] & self.phy[phy::MASK] != 0
    }

    pub(crate) fn control(&self) -> u32 {
        self.csr[csr::CR]
    }

    /// What is sent comes back.
    pub(crate) fn loops(&self) -> bool {
        self.control() & mac_cr::LOOPBACK != 0 || self.phy[phy::CONTROL] & phy::LOOPBACK != 0
    }

    pub(crate) fn read(&mut self, index: u32) -> u32 {
        match index as usize {
            csr::MII_DATA => self.csr[csr::MII_DATA],
            i => self.csr.get(i).copied().unwrap_or(0),
        }
    }

    pub(crate) fn write(&mut self, index: u32, value: u32) {
        match index as usize {
            csr::CR => self.csr[csr::CR] = value & mac_cr::WRITABLE,
            csr::ADDRH => self.csr[csr::ADDRH] = value & 0xffff,
            // The PHY's register is read or written at once (5.4.6).
            csr::MII_ACC => {
                self.csr[csr::MII_ACC] = value & 0xffc2;
                let (address, register) = (value >> 11 & 0x1f, value >> 6 & 0x1f);
                if value & 2 != 0 {
                    self.phy_write(address, register as usize, self.csr[csr::MII_DATA] as u16);
                } else {
                    self.csr[csr::MII_DATA] = self.phy_read(address, register as usize).into();
                }
            }
            csr::MII_DATA => self.csr[csr::MII_DATA] = value & 0xffff,
            i => {
                if let Some(slot) = self.csr.get_mut(i) {
                    *slot = value;
                }
            }
        }
    }

    /// The PHY: while its cable is plugged in, its wire is up with 100 Mbit/s in both directions.
    fn phy_read(&mut self, address: u32, register: usize) -> u16 {
        if address != PHY {
            return 0xffff;
        }
        let up = self.plugged() && self.phy[phy::CONTROL] & phy::POWER_DOWN == 0;
        match register {
            // 100 and 10 Mbit/s, each with full and half duplex; negotiation done; link up. That the link went down is shown once (IEEE 802.3, 22.2.4.2.13).
            phy::STATUS => {
                let went_down = self.phy[phy::STATUS] & phy::WENT_DOWN != 0;
                self.phy[phy::STATUS] &= !phy::WENT_DOWN;
                match (up, went_down) {
                    (false, _) => 0x7809,
                    (true, true) => 0x7829,
                    (true, false) => 0x782d,
                }
            }
            phy::ID1 => 0x0007,
            phy::ID2 => 0xc0d1,
            phy::PARTNER if !self.plugged() => 0,
            phy::PARTNER => 0x41e1,
            phy::EXPANSION => self.plugged().into(),
            // Energy on the wire.
            phy::MODE => self.phy[phy::MODE] & !2 | u16::from(self.plugged()) << 1,
            phy::SOURCE => std::mem::take(&mut self.phy[phy::SOURCE]),
            phy::SPECIAL if !self.plugged() => 0,
            phy::SPECIAL => 0x1018,
            _ => self.phy[register],
        }
    }

    fn phy_write(&mut self, address: u32, register: usize, value: u16) {
        if address != PHY {
            return;
        }
        match register {
            phy::CONTROL if value & phy::RESET_BIT != 0 => self.phy_reset(),
            phy::CONTROL => self.phy[phy::CONTROL] = value & !phy::RESTART,
            phy::STATUS | phy::SOURCE => {}
            phy::MASK => self.phy[phy::MASK] = value & 0xff,
            _ => self.phy[register] = value,
        }
    }

    pub(crate) fn e2p_cmd(&self) -> u32 {
        self.e2p_cmd
    }

    pub(crate) fn e2p_data(&self) -> u32 {
        self.e2p_data.into()
    }

    pub(crate) fn set_e2p_data(&mut self, value: u32) {
        self.e2p_data = value as u8;
    }

    /// A command to the EEPROM (5.3.23), done at once.
    pub(crate) fn eeprom(&mut self, value: u32) {
        let at = value as usize & (EEPROM - 1);
        self.e2p_cmd = value & 0x7000_00ff | self.e2p_cmd & MAC_LOADED;
        if value & BUSY == 0 {
            return;
        }
        match value >> 28 & 7 {
            0 => self.e2p_data = self.eeprom[at],
            1 => self.writable = false,
            2 => self.writable = true,
            3 if self.writable => self.eeprom[at] = self.e2p_data,
            4 if self.writable => self.eeprom.fill(self.e2p_data),
            5 if self.writable => self.eeprom[at] = 0xff,
            6 if self.writable => self.eeprom.fill(0xff),
            7 => self.load(),
            _ => {}
        }
    }

    /// Whether a frame is taken (3.5.2).
    pub(crate) fn accepts(&self, frame: &[u8]) -> Match {
        let cr = self.control();
        let Some(to) = frame.get(..6) else { return Match::No };
        let [l, h] = [csr::ADDRL, csr::ADDRH].map(|i| self.csr[i].to_le_bytes());
        let perfect = to == [l[0], l[1], l[2], l[3], h[0], h[1]];
        let group = to[0] & 1 != 0;
        let hashed = || {
            let bit = (!crc32(to)).reverse_bits() >> 26;
            let word = self.csr[if bit >= 32 { csr::HASHH } else { csr::HASHL }];
            word >> (bit & 31) & 1 != 0
        };
        let taken = match group {
            _ if to == [0xff; 6] => cr & mac_cr::NO_BROADCAST == 0,
            true if cr & mac_cr::ALL_MULTICAST != 0 => true,
            true => cr & mac_cr::HASH_PERFECT != 0 && hashed(),
            false if cr & mac_cr::INVERSE != 0 => !perfect,
            false if cr & mac_cr::HASH_ONLY != 0 => hashed(),
            false => perfect,
        };
        match taken {
            true => Match::Yes,
            false if cr & mac_cr::PROMISCUOUS != 0 => Match::Promiscuous,
            false => Match::No,
        }
    }
}

/// The frame check sequence (IEEE 802.3, 3.2.9).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 != 0 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}
