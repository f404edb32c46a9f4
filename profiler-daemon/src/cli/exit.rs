//! How the process ends.

use std::process::ExitCode;

use super::config::ConfigErrors;
use crate::hooks::LoadError;
use crate::locks::choices::ChoiceError;
use crate::locks::resolve::NothingToWatch;
use crate::serve::access::{Exposed, FileError};
use crate::storm::StormError;
use crate::top::TopError;

/// Exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// It did what was asked.
    Success = 0,
    /// It failed.
    Failure = 1,
    /// The arguments or the configuration are wrong.
    Usage = 2,
    /// This kernel or these privileges do not allow it; the message names the
    /// missing piece.
    Refused = 3,
}

impl ExitStatus {
    /// The status for an error that ends the process, by the first error in its
    /// chain that decides it.
    pub fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            let wrong = cause.is::<ConfigErrors>()
                || cause.is::<FileError>()
                || cause.is::<Exposed>()
                || cause.is::<ChoiceError>()
                || cause.downcast_ref::<StormError>().is_some_and(StormError::is_usage)
                || cause.downcast_ref::<TopError>().is_some_and(TopError::is_usage);
            if wrong {
                return Self::Usage;
            }
            let refused = cause.is::<NothingToWatch>()
                || cause.downcast_ref::<LoadError>().is_some_and(LoadError::is_environment)
                || cause.downcast_ref::<StormError>().is_some_and(StormError::is_refusal)
                || cause.downcast_ref::<TopError>().is_some_and(TopError::is_refusal);
            if refused {
                return Self::Refused;
            }
        }
        Self::Failure
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_missing_privilege_is_a_refusal_below_any_context() {
        let error = Err::<(), _>(StormError::NotPermitted).context("failed to storm").unwrap_err();
        assert_eq!(ExitStatus::of(&error), ExitStatus::Refused);
    }

    #[test]
    fn a_node_that_is_not_there_is_a_wrong_argument() {
        let error = StormError::NoSuchNode { node: 7, present: "0-1".to_owned() };
        assert_eq!(ExitStatus::of(&error.into()), ExitStatus::Usage);
    }

    #[test]
    fn a_storm_that_broke_is_a_failure() {
        let error = anyhow!(StormError::EndedEarly("signal 9".to_owned()));
        assert_eq!(ExitStatus::of(&error), ExitStatus::Failure);
        assert_eq!(ExitStatus::of(&anyhow!("anything else")), ExitStatus::Failure);
    }
}
