//! What a machine file says about the boards: identification, switches, and what the microcontroller can measure and set.

use reprise_device::ConfigError;
use serde::Deserialize;

use crate::spec::function;

/// The registers' place in a machine file. All of it has defaults: a V2P-CA15 core tile in site 1 of a V2M-P1 motherboard.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// SYS_ID: the motherboard.
    pub id: u32,
    /// SYS_PROCID0 and SYS_PROCID1: the boards in sites 1 and 2.
    pub procid: (u32, u32),
    /// SYS_SW: the user switches.
    pub switches: u8,
    /// SYS_CFGSW after reset: the configuration switches.
    pub cfgsw: u8,
    /// Site of the board with the boot processor: 1 or 2.
    pub master_site: u8,
    /// What the boards have.
    pub sites: Vec<Site>,
}

/// What one board has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// 0 is the motherboard, 1 and 2 are the daughterboards; at most 3.
    pub site: u8,
    /// The board's controller, 0 to 15.
    pub dcc: u8,
    /// Place in the stack of boards, 0 to 15.
    pub position: u8,
    /// Oscillators: rates in Hz.
    pub osc: Vec<Value>,
    /// Voltages in uV.
    pub volt: Vec<Value>,
    /// Currents in uA.
    pub amp: Vec<Value>,
    /// Temperatures in thousandths of a degree Celsius.
    pub temp: Vec<Value>,
    /// Powers in uW.
    pub power: Vec<Value>,
    /// Energies in uJ; the higher half of one is the next device.
    pub energy: Vec<Value>,
    /// Serial configuration controller registers.
    pub scc: Vec<Value>,
    /// Video multiplexers.
    pub muxfpga: Vec<Value>,
    /// DVI modes.
    pub dvimode: Vec<Value>,
}

/// A device's number, 0 to 4095, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Value(pub u16, pub u32);

/// Values in one config.
const MAX_VALUES: usize = 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            id: 0x1190_f500,
            procid: (0x1400_0237, 0xff00_0000),
            switches: 0,
            cfgsw: 0,
            master_site: 1,
            sites: vec![motherboard(), core_tile_a15()],
        }
    }
}

fn motherboard() -> Site {
    Site {
        site: 0,
        osc: vec![Value(0, 50_000_000), Value(1, 23_750_000), Value(2, 24_000_000)],
        volt: vec![Value(0, 3_300_000)],
        temp: vec![Value(0, 30_000)],
        muxfpga: vec![Value(0, 0)],
        dvimode: vec![Value(0, 0)],
        ..Site::default()
    }
}

fn core_tile_a15() -> Site {
    let rates = [(0, 60_000_000), (4, 40_000_000), (5, 23_750_000), (6, 50_000_000), (7, 60_000_000), (8, 40_000_000)];
    Site {
        site: 1,
        osc: rates.map(|(device, hz)| Value(device, hz)).to_vec(),
        volt: vec![Value(0, 900_000)],
        amp: vec![Value(0, 500_000)],
        temp: vec![Value(0, 40_000)],
        power: vec![Value(0, 450_000)],
        energy: vec![Value(0, 0), Value(1, 0)],
        ..Site::default()
    }
}

impl Config {
    /// All values by their address in SYS_CFGCTRL, sorted.
    pub(crate) fn values(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<_> = self.sites.iter().flat_map(Site::values).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let fail = |what: String| Err(ConfigError::new(what));
        if !matches!(self.master_site, 1 | 2) {
            return fail(format!("master_site: {} is not 1 or 2", self.master_site));
        }
        for s in &self.sites {
            if s.site > 3 || s.dcc > 15 || s.position > 15 {
                return fail(format!("site {}, dcc {}, position {}: at most 3, 15 and 15", s.site, s.dcc, s.position));
            }
            if let Some(v) = s.lists().into_iter().flat_map(|(_, list)| list).find(|v| v.0 > 0xfff) {
                return fail(format!("device {} of site {}: at most 4095", v.0, s.site));
            }
        }
        let values = self.values();
        if values.len() > MAX_VALUES {
            return fail(format!("{} values in all sites, at most {MAX_VALUES} are allowed", values.len()));
        }
        match values.windows(2).find(|w| w[0].0 == w[1].0) {
            Some(w) => fail(format!("device {} of site {} stands twice", w[0].0 & 0xfff, w[0].0 >> 16 & 3)),
            None => Ok(()),
        }
    }
}

impl Site {
    fn lists(&self) -> [(u32, &Vec<Value>); 9] {
        [
            (function::OSC, &self.osc),
            (function::VOLT, &self.volt),
            (function::AMP, &self.amp),
            (function::TEMP, &self.temp),
            (function::SCC, &self.scc),
            (function::MUXFPGA, &self.muxfpga),
            (function::DVIMODE, &self.dvimode),
            (function::POWER, &self.power),
            (function::ENERGY, &self.energy),
        ]
    }

    fn values(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let board = u32::from(self.dcc) << 26 | u32::from(self.site) << 16 | u32::from(self.position) << 12;
        let of_list = move |(function, list): (u32, &Vec<Value>)| {
            let all: Vec<_> = list.iter().map(|v| (board | function << 20 | u32::from(v.0), v.1)).collect();
            all
        };
        self.lists().into_iter().flat_map(of_list)
    }
}
