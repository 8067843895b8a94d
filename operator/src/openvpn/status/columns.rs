//! The columns of a table, by the names in its header, and the lines of the table.
//!
//! Names of certificates and users may contain commas, and OpenVPN does not quote them. So a line may be split in
//! several ways. All other columns have a form that is checked: a line is only read if exactly one way fits.

use std::net::IpAddr;

use chrono::{NaiveDateTime, TimeZone, Utc};

/// What a column contains. New versions of OpenVPN add columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    CommonName,
    RealAddress,
    VirtualAddress,
    VirtualIpv6Address,
    Received,
    Sent,
    /// The time as text.
    Time,
    /// The time in seconds since 1970.
    Seconds,
    Username,
    ClientId,
    /// A number, or empty.
    Number,
    /// A short word without commas, or a column of a newer version.
    Other,
}

impl Column {
    fn named(name: &[u8]) -> Self {
        match name {
            b"Common Name" => Self::CommonName,
            b"Real Address" => Self::RealAddress,
            b"Virtual Address" => Self::VirtualAddress,
            b"Virtual IPv6 Address" => Self::VirtualIpv6Address,
            b"Bytes Received" => Self::Received,
            b"Bytes Sent" => Self::Sent,
            b"Connected Since" | b"Last Ref" => Self::Time,
            b"Connected Since (time_t)" | b"Last Ref (time_t)" => Self::Seconds,
            b"Username" => Self::Username,
            b"Client ID" => Self::ClientId,
            b"Peer ID" => Self::Number,
            _ => Self::Other,
        }
    }

    /// Whether the column may contain the separator.
    fn is_free(self) -> bool {
        matches!(self, Self::CommonName | Self::Username)
    }

    fn fits(self, value: &[u8]) -> bool {
        match self {
            Self::CommonName | Self::Username | Self::Other => true,
            Self::RealAddress => is_address(value) && value.iter().any(|byte| b".:".contains(byte)),
            Self::VirtualAddress => value.is_empty() || is_address(value),
            Self::VirtualIpv6Address => value.is_empty() || text(value).is_some_and(|it| it.parse::<IpAddr>().is_ok()),
            Self::Received | Self::Sent => number::<u64>(value).is_some(),
            Self::Time => date(value).is_some(),
            Self::Seconds => number::<i64>(value).is_some(),
            Self::ClientId | Self::Number => value.is_empty() || number::<u64>(value).is_some(),
        }
    }
}

/// An address with or without a port, network or protocol, an address of Ethernet, or the name of a socket's family.
fn is_address(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b".:[]/%@_-".contains(byte))
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Parses digits, without a sign.
pub(super) fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Parses a time as text: that of OpenVPN from 2.5 on, or that of older ones.
fn date(value: &[u8]) -> Option<NaiveDateTime> {
    let text = text(value)?;
    let formats = ["%Y-%m-%d %H:%M:%S", "%a %b %e %H:%M:%S %Y"];
    formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
}

/// Returns the seconds since 1970 of a time as text.
pub(super) fn seconds(value: &[u8], zone: &impl TimeZone) -> Option<i64> {
    let date = date(value)?;
    // A time that a change of clocks skips does not exist in the zone.
    Some(
        zone.from_local_datetime(&date)
            .earliest()
            .map_or_else(|| Utc.from_utc_datetime(&date).timestamp(), |time| time.timestamp()),
    )
}

/// The columns of a table.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    separator: u8,
}

/// How a line can be read.
#[derive(Debug)]
pub(super) enum Reading<'a> {
    /// In one way.
    Values(Values<'a>),
    /// In several ways.
    Ambiguous,
    /// In no way.
    Malformed,
}

/// The values of a line, in the order of the columns.
#[derive(Debug)]
pub(super) struct Values<'a> {
    columns: &'a [Column],
    values: Vec<&'a [u8]>,
}

impl Columns {
    /// Reads the names of columns. They must contain the wanted ones.
    pub(super) fn read(header: &[u8], separator: u8, wanted: &[Column]) -> Option<Self> {
        let columns: Vec<_> = header.split(|byte| *byte == separator).map(Column::named).collect();
        let is_there = |wanted: &Column| columns.contains(wanted);
        let has_time = is_there(&Column::Time) || is_there(&Column::Seconds);
        (has_time && wanted.iter().all(is_there)).then_some(Self { columns, separator })
    }

    /// Reads a line of the table.
    pub(super) fn line<'a>(&'a self, line: &'a [u8]) -> Reading<'a> {
        let commas: Vec<usize> =
            line.iter().enumerate().filter(|(_, byte)| **byte == self.separator).map(|(at, _)| at).collect();
        let Some(extra) = (commas.len() + 1).checked_sub(self.columns.len()) else { return Reading::Malformed };
        let free = self.columns.iter().filter(|column| column.is_free()).count();
        let mut found = None;
        // The first free column takes some of the extra commas, and the second one the others.
        for first in if free > 1 { 0..=extra } else { extra..=extra } {
            if extra > 0 && free == 0 {
                break;
            }
            let Some(values) = self.split(line, &commas, first, extra - first) else { continue };
            if found.is_some() {
                return Reading::Ambiguous;
            }
            found = Some(values);
        }
        found.map_or(Reading::Malformed, |values| Reading::Values(Values { columns: &self.columns, values }))
    }

    fn split<'a>(&self, line: &'a [u8], commas: &[usize], first: usize, second: usize) -> Option<Vec<&'a [u8]>> {
        let mut shares = [first, second].into_iter();
        let (mut from, mut piece) = (0, 0);
        let mut values = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            piece += if column.is_free() { shares.next().unwrap_or(0) } else { 0 };
            let to = commas.get(piece).copied().unwrap_or(line.len());
            let value = line.get(from..to)?;
            if !column.fits(value) {
                return None;
            }
            values.push(value);
            piece += 1;
            from = to + 1;
        }
        Some(values)
    }
}

impl<'a> Values<'a> {
    /// Returns the value of a column, if the table has it.
    pub(super) fn get(&self, wanted: Column) -> Option<&'a [u8]> {
        self.columns.iter().position(|column| *column == wanted).map(|at| self.values[at])
    }

    /// Returns the value of a column as text, or an empty one.
    pub(super) fn text(&self, wanted: Column) -> String {
        String::from_utf8_lossy(self.get(wanted).unwrap_or_default()).into_owned()
    }

    /// Returns the time of the line, in seconds since 1970.
    pub(super) fn time(&self, zone: &impl TimeZone) -> i64 {
        let known = self.get(Column::Seconds).and_then(number);
        known.or_else(|| seconds(self.get(Column::Time)?, zone)).unwrap_or_default()
    }
}
