//! The import table as a test.
