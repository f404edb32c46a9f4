//! What the subcommands do: short compositions of the other rooms.

pub mod daemon;
pub mod doctor;
pub mod limits;
pub mod logging;
pub mod needs;
mod redact;
pub mod session;
pub mod stat;
pub mod storm;
pub mod table;
pub mod top;
