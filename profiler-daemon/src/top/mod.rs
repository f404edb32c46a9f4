//! `lockprof top`: connection, state, view, input, terminal.
