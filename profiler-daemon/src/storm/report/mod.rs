//! A report as a table and as a page.
