//! Strategies in short: what they change in the one that the flags describe.

use crate::storm::{Idmap, MaskWith, MountQuery, Propagation, RootFs, Runtime, Strategy};

use super::Knob;

/// What to change in a strategy, such as `fd` or `masks=96+shared-tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RootFs(RootFs),
    Runtime(Runtime),
    Idmap(Idmap),
    MaskWith(MaskWith),
    Propagation(Propagation),
    MountQuery(MountQuery),
    Knob(Knob, u32),
}

/// A flag whose values have names, with a reader for them.
type Named = (&'static str, fn(&str) -> Option<Part>);

const NAMED: [Named; 6] = [
    ("rootfs", |text| find(RootFs::ALL, RootFs::as_str, text).map(Part::RootFs)),
    ("runtime", |text| find(Runtime::ALL, Runtime::as_str, text).map(Part::Runtime)),
    ("idmap", |text| find(Idmap::ALL, Idmap::as_str, text).map(Part::Idmap)),
    ("mask-with", |text| find(MaskWith::ALL, MaskWith::as_str, text).map(Part::MaskWith)),
    ("propagation", |text| {
        find(Propagation::ALL, Propagation::as_str, text).map(Part::Propagation)
    }),
    ("mount-query", |text| find(MountQuery::ALL, MountQuery::as_str, text).map(Part::MountQuery)),
];

fn find<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|value| name(*value) == text)
}

impl Change {
    /// Reads parts with `+` between them; each is a value that only one flag
    /// has, or `flag=value`.
    ///
    /// # Errors
    ///
    /// Names the part that is neither, with what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split('+').map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The strategy with the changes made.
    pub fn apply(&self, to: &Strategy) -> Strategy {
        let mut strategy = to.clone();
        for part in &self.parts {
            match *part {
                Part::RootFs(value) => strategy.rootfs = value,
                Part::Runtime(value) => strategy.runtime = value,
                Part::Idmap(value) => strategy.idmap = Some(value),
                Part::MaskWith(value) => strategy.mask_with = value,
                Part::Propagation(value) => strategy.propagation = value,
                Part::MountQuery(value) => strategy.mount_query = value,
                Part::Knob(knob, value) => {
                    if let Some(figure) = knob.of_strategy(&mut strategy) {
                        *figure = value;
                    }
                }
            }
        }
        strategy
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        let found = match text.split_once('=') {
            Some((flag, value)) => match NAMED.iter().find(|(name, _)| *name == flag) {
                Some((_, read)) => read(value),
                None => Knob::of_strategies()
                    .find(|knob| knob.as_str() == flag)
                    .and_then(|knob| Some(Self::Knob(knob, knob.parse_value(value).ok()?))),
            },
            None => NAMED.iter().find_map(|(_, read)| read(text)),
        };
        found.ok_or_else(|| {
            let knobs: Vec<_> = Knob::of_strategies().map(Knob::as_str).collect();
            format!(
                "`{text}` is no part of a strategy: write a value of --rootfs, --runtime, --idmap, \
                 --mask-with, --propagation or --mount-query, or a figure such as layers=50 (of {})",
                knobs.join(", ")
            )
        })
    }
}
