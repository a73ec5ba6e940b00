//! Values of fixed length in a row, one behind the other, numbers with the most significant octet
//! first.

use rusqlite::types::Type;

use crate::otp::clock::UnixMillis;

/// What is left to be read.
pub struct Octets<'a>(pub &'a [u8]);

impl Octets<'_> {
    /// The next so many octets; `None` if there are not as many.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// The next octet.
    pub fn octet(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    /// The next number of four octets.
    pub fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// The next instant.
    pub fn instant(&mut self) -> Option<UnixMillis> {
        self.take().map(u64::from_be_bytes).map(UnixMillis)
    }

    /// As many members as there are; `None` if the last one is not whole.
    pub fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut members = Vec::new();
        while !self.0.is_empty() {
            members.push(read(self)?);
        }
        Some(members)
    }
}

/// The error of a value that is laid out otherwise.
pub fn unreadable(column: usize) -> rusqlite::Error {
    let reason = "a value in a form that this version does not know";
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, reason.into())
}
