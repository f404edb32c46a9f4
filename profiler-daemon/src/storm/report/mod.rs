//! What a storm, or many, were: as text for a terminal and as a page.
//!
//! - `text`, `of_trial`: tables for a terminal;
//! - `page`: a self-contained HTML page with plots;
//! - `words`: what both say in sentences.
//!
//! As JSON it is the [`Report`](super::Report) itself.

mod figures;
mod html;
mod table;
mod words;

pub use self::html::page;
pub use self::table::{of_trial, text};
