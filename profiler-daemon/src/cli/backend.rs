//! Backends by name: `--backend` and the `[hooks]` table.

use std::str::FromStr;

use crate::hooks::backend::{Backends, CallBackend, WaitBackend};

/// Stands for all backends of a family in order, the best first.
pub(super) const AUTO: &str = "auto";

const WAITS: &str = "waits";
const CALLS: &str = "calls";

/// What one `--backend` says of each family: nothing, that all backends are
/// allowed (`Some(None)`), or that one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    waits: Option<Option<WaitBackend>>,
    calls: Option<Option<CallBackend>>,
}

/// The names of a family: [`AUTO`] and those of its backends.
pub(super) fn names<B: Copy>(
    all: &[B],
    name: fn(B) -> &'static str,
) -> impl Iterator<Item = &'static str> {
    std::iter::once(AUTO).chain(all.iter().map(move |backend| name(*backend)))
}

/// The backend of this name; `Some(None)` for [`AUTO`], `None` for no name of
/// the family.
pub(super) fn by_name<B: Copy>(
    text: &str,
    all: &[B],
    name: fn(B) -> &'static str,
) -> Option<Option<B>> {
    if text == AUTO {
        return Some(None);
    }
    all.iter().copied().find(|backend| name(*backend) == text).map(Some)
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let waits = |name| by_name(name, &WaitBackend::ALL, WaitBackend::name);
        let calls = |name| by_name(name, &CallBackend::ALL, CallBackend::name);
        let choice = match text.split_once('=') {
            None => Self { waits: waits(text), calls: calls(text) },
            Some((WAITS, name)) => Self { waits: waits(name), calls: None },
            Some((CALLS, name)) => Self { waits: None, calls: calls(name) },
            Some(_) => Self { waits: None, calls: None },
        };
        if choice.waits.is_none() && choice.calls.is_none() {
            return Err(format!("no such backend; there are {}", all()));
        }
        Ok(choice)
    }
}

/// Every value that is understood.
fn all() -> String {
    let waits = names(&WaitBackend::ALL, WaitBackend::name).map(|name| format!("{WAITS}={name}"));
    let calls = names(&CallBackend::ALL, CallBackend::name).map(|name| format!("{CALLS}={name}"));
    let every: Vec<_> = waits.chain(calls).collect();
    format!("{}, or a name without family for every family that has it", every.join(", "))
}

/// Changes `backends` as the choices of a command line say.
///
/// # Errors
///
/// Choices that contradict each other, one message for each family.
pub(super) fn apply(choices: &[Choice], backends: &mut Backends) -> Result<(), Vec<String>> {
    let waits = agreed(WAITS, choices.iter().filter_map(|c| c.waits), WaitBackend::name);
    let calls = agreed(CALLS, choices.iter().filter_map(|c| c.calls), CallBackend::name);
    match (waits, calls) {
        (Ok(waits), Ok(calls)) => {
            backends.waits = waits.unwrap_or(backends.waits);
            backends.calls = calls.unwrap_or(backends.calls);
            Ok(())
        }
        (waits, calls) => Err(waits.err().into_iter().chain(calls.err()).collect()),
    }
}

/// What all choices for a family say, if they say anything.
fn agreed<B: Copy + PartialEq>(
    family: &str,
    mut choices: impl Iterator<Item = Option<B>>,
    name: fn(B) -> &'static str,
) -> Result<Option<Option<B>>, String> {
    let first = choices.next();
    match first.and_then(|first| choices.find(|other| *other != first).map(|other| (first, other)))
    {
        None => Ok(first),
        Some((one, other)) => {
            let name = |backend: Option<B>| backend.map_or(AUTO, name);
            Err(format!("{family} is set to {} and to {}; give one", name(one), name(other)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(choices: &[&str]) -> Result<Backends, Vec<String>> {
        let choices: Vec<_> = choices.iter().map(|c| c.parse().unwrap()).collect();
        let mut backends = Backends::default();
        apply(&choices, &mut backends).map(|()| backends)
    }

    #[test]
    fn a_backend_is_chosen_for_its_family_or_for_every_one_that_has_it() {
        let (waits, calls) = (Some(WaitBackend::RawTp), Some(CallBackend::Tracepoint));
        assert_eq!(backends(&[]), Ok(Backends::default()));
        assert_eq!(backends(&["waits=raw_tp"]), Ok(Backends { waits, calls: None }));
        assert_eq!(backends(&["raw_tp", "tracepoint"]), Ok(Backends { waits, calls }));
        let (waits, calls) = (Some(WaitBackend::Fentry), Some(CallBackend::Fentry));
        assert_eq!(backends(&["fentry"]), Ok(Backends { waits, calls }));
        assert_eq!(backends(&["calls=fentry", "fentry"]), Ok(Backends { waits, calls }));
    }

    #[test]
    fn contradicting_choices_are_refused_by_family() {
        assert_eq!(
            backends(&["fentry", "calls=kprobe", "waits=auto"]),
            Err(vec![
                "waits is set to fentry and to auto; give one".to_owned(),
                "calls is set to fentry and to kprobe; give one".to_owned(),
            ])
        );
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_that_there_are() {
        for wrong in ["fentri", "waits=tracepoint", "calls=raw_tp", "locks=fentry", "calls=", ""] {
            let error = wrong.parse::<Choice>().unwrap_err();
            for known in ["waits=auto", "waits=tp_btf", "calls=auto", "calls=tracepoint"] {
                assert!(error.contains(known), "{wrong}: {error}");
            }
        }
    }
}
