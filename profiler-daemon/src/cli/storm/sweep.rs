//! What a sweep varies, and through which values.

use std::num::NonZeroU32;

use super::{MOST, MOST_CONCURRENT, MOST_LAYERS};
use crate::storm::{Options, Strategy};

/// Values that a sweep has at most.
const MOST_VALUES: usize = 100;

/// A figure that can be varied, by the name of its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// [`Options::concurrency`].
    Concurrency,
    /// [`Options::pollers`].
    Pollers,
    /// [`Strategy::layers`].
    Layers,
    /// [`Strategy::binds`].
    Binds,
    /// [`Strategy::masks`].
    Masks,
    /// [`Strategy::host_mounts`].
    HostMounts,
    /// [`Strategy::mountinfo_reads`].
    MountinfoReads,
}

impl Knob {
    const ALL: [Self; 7] = [
        Self::Concurrency,
        Self::Pollers,
        Self::Layers,
        Self::Binds,
        Self::Masks,
        Self::HostMounts,
        Self::MountinfoReads,
    ];

    /// Its flag, without the dashes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Pollers => "pollers",
            Self::Layers => "layers",
            Self::Binds => "binds",
            Self::Masks => "masks",
            Self::HostMounts => "host-mounts",
            Self::MountinfoReads => "mountinfo-reads",
        }
    }

    /// Those that belong to a strategy.
    pub(super) fn of_strategies() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|knob| !matches!(knob, Self::Concurrency | Self::Pollers))
    }

    /// Where a strategy has it.
    pub(super) const fn of_strategy(self, strategy: &mut Strategy) -> Option<&mut u32> {
        match self {
            Self::Concurrency | Self::Pollers => None,
            Self::Layers => Some(&mut strategy.layers),
            Self::Binds => Some(&mut strategy.binds),
            Self::Masks => Some(&mut strategy.masks),
            Self::HostMounts => Some(&mut strategy.host_mounts),
            Self::MountinfoReads => Some(&mut strategy.mountinfo_reads),
        }
    }

    /// Sets it.
    pub fn set(self, options: &mut Options, value: u32) {
        match (self, self.of_strategy(&mut options.strategy)) {
            (_, Some(figure)) => *figure = value,
            (Self::Concurrency, None) => {
                options.concurrency = NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
            }
            (_, None) => options.pollers = value,
        }
    }

    const fn range(self) -> (i64, i64) {
        match self {
            Self::Concurrency => (1, MOST_CONCURRENT),
            Self::Pollers => (0, MOST_CONCURRENT),
            Self::Layers => (0, MOST_LAYERS),
            Self::Binds | Self::Masks | Self::HostMounts | Self::MountinfoReads => (0, MOST),
        }
    }

    /// Reads one value.
    pub(super) fn parse_value(self, text: &str) -> Result<u32, String> {
        let (least, most) = self.range();
        let value: Option<u32> = text.parse().ok();
        value.filter(|value| (least..=most).contains(&i64::from(*value))).ok_or_else(|| {
            format!("`{text}` is not a figure of {} from {least} to {most}", self.as_str())
        })
    }
}

/// What to vary, through which values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The figure.
    pub knob: Knob,
    /// Ascending, at least two.
    pub values: Vec<u32>,
}

impl Sweep {
    /// Reads `knob=FROM..TO` (doubling), `knob=FROM..TO:STEP` or `knob=A|B|C`.
    ///
    /// # Errors
    ///
    /// Names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it like concurrency=1..64 (doubling), layers=10..50:10 (in \
                            steps) or binds=8|40|200";
        let (name, values) = text.split_once('=').ok_or(FORM)?;
        let Some(knob) = Knob::ALL.into_iter().find(|knob| knob.as_str() == name) else {
            let all = Knob::ALL.map(Knob::as_str).join(", ");
            return Err(format!("`{name}` cannot be swept; there are {all}"));
        };
        let mut values = match values.split_once("..") {
            Some((from, rest)) => {
                let (to, step) = match rest.split_once(':') {
                    Some((to, step)) => {
                        let step = step.parse().ok().filter(|step| *step > 0);
                        (to, Some(step.ok_or("the step must be a figure above 0")?))
                    }
                    None => (rest, None),
                };
                range(knob.parse_value(from)?, knob.parse_value(to)?, step)
            }
            None => values.split('|').map(|v| knob.parse_value(v)).collect::<Result<_, _>>()?,
        };
        values.sort_unstable();
        values.dedup();
        match values.len() {
            0 | 1 => Err(format!("a sweep needs two values at least; {FORM}")),
            2..=MOST_VALUES => Ok(Self { knob, values }),
            n => Err(format!("{n} values are too many, at most {MOST_VALUES}; {FORM}")),
        }
    }
}

/// From `from` to `to`, both included: by steps, or doubling.
fn range(from: u32, to: u32, step: Option<u32>) -> Vec<u32> {
    let next = move |value: &u32| match step {
        Some(step) => value.checked_add(step),
        None => Some(value.checked_mul(2)?.max(1)),
    };
    let mut values: Vec<u32> = std::iter::successors(Some(from), next)
        .take_while(|value| *value < to)
        .take(MOST_VALUES + 1)
        .collect();
    values.push(to);
    values
}
