//! Parses the lines of a status.

use std::collections::HashMap;

use chrono::{Local, TimeZone};

use super::{
    Client, Route, Status, StatusError, UNDEFINED,
    columns::{Column, Columns, Reading, Values, number, seconds},
};

const CLIENT_COLUMNS: [Column; 4] = [Column::CommonName, Column::RealAddress, Column::Received, Column::Sent];
const ROUTE_COLUMNS: [Column; 3] = [Column::VirtualAddress, Column::CommonName, Column::RealAddress];

fn parse(bytes: &[u8], zone: &impl TimeZone) -> Result<Status, StatusError> {
    // The first line tells who wrote it, even if the rest is missing.
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let separator = match first.strip_suffix(b"\r").unwrap_or(first) {
        b"OpenVPN CLIENT LIST" => None,
        b"OpenVPN STATISTICS" => return Err(StatusError::NotAServer),
        title if title.starts_with(b"TITLE,") => Some(b','),
        title if title.starts_with(b"TITLE\t") => Some(b'\t'),
        title if b"OpenVPN CLIENT LIST".starts_with(title) || b"TITLE,".starts_with(title) => {
            return Err(StatusError::Incomplete);
        }
        _ => return Err(StatusError::Unknown),
    };
    let lines = lines_before_end(bytes)?;
    match separator {
        None => parse_sections(&lines, zone),
        Some(separator) => parse_tagged(&lines, separator, zone),
    }
}

impl Status {
    /// Parses a whole status. Versions 1 and others are told apart by the first line. Version 1 has times without a
    /// zone, which are taken as local.
    ///
    /// # Errors
    /// If the status is not complete, or not that of a server.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatusError> {
        Self::parse_in(bytes, &Local)
    }

    /// Like [`Status::parse`], with the zone of times.
    ///
    /// # Errors
    /// Likewise.
    pub fn parse_in(bytes: &[u8], zone: &impl TimeZone) -> Result<Self, StatusError> {
        parse(bytes, zone)
    }
}

/// Returns the lines before the line `END`, which is the last one.
fn lines_before_end(bytes: &[u8]) -> Result<Vec<&[u8]>, StatusError> {
    let complete = bytes.strip_suffix(b"\n");
    let mut lines: Vec<_> = complete
        .unwrap_or(bytes)
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    match lines.iter().position(|line| *line == b"END") {
        Some(end) if end + 1 < lines.len() => Err(StatusError::Trailing),
        Some(end) if complete.is_some() => {
            lines.truncate(end);
            Ok(lines)
        }
        _ => Err(StatusError::Incomplete),
    }
}

/// Parses versions 2 and 3, in which each line starts with a tag.
fn parse_tagged(lines: &[&[u8]], separator: u8, zone: &impl TimeZone) -> Result<Status, StatusError> {
    let mut status = Status::default();
    let (mut updated, mut clients, mut routes) = (None, None, None);
    for (number_of_line, line) in lines.iter().enumerate() {
        let error = |problem| StatusError::Line { line: number_of_line + 1, problem };
        let (tag, rest) = split(line, separator).ok_or_else(|| error("expected a tag and values"))?;
        match tag {
            b"TITLE" if number_of_line == 0 => {}
            b"TIME" if updated.is_none() => {
                let time = rest.rsplit(|byte| *byte == separator).next().and_then(number);
                updated = Some(time.ok_or_else(|| error("expected the time in seconds"))?);
            }
            b"HEADER" => {
                let (table, names) = split(rest, separator).ok_or_else(|| error("expected names of columns"))?;
                let (columns, wanted) = match table {
                    b"CLIENT_LIST" => (&mut clients, &CLIENT_COLUMNS[..]),
                    b"ROUTING_TABLE" => (&mut routes, &ROUTE_COLUMNS[..]),
                    _ => return Err(error("unknown table")),
                };
                let read = Columns::read(names, separator, wanted).ok_or_else(|| error("columns are missing"))?;
                if columns.replace(read).is_some() {
                    return Err(error("a second header of the table"));
                }
            }
            b"CLIENT_LIST" => {
                let columns = clients.as_ref().ok_or_else(|| error("no header before the client"))?;
                add_client(&mut status, columns.line(rest), zone).map_err(error)?;
            }
            b"ROUTING_TABLE" => {
                let columns = routes.as_ref().ok_or_else(|| error("no header before the route"))?;
                add_route(&mut status, columns.line(rest), zone).map_err(error)?;
            }
            b"GLOBAL_STATS" => {}
            // Not skipped: while OpenVPN writes over an older file, there are pieces of lines.
            _ => return Err(error("unknown tag")),
        }
    }
    status.updated = updated.ok_or(StatusError::Missing("time"))?;
    clients.ok_or(StatusError::Missing("header of the clients"))?;
    routes.ok_or(StatusError::Missing("header of the routes"))?;
    Ok(status)
}

/// Parses version 1, in which tables follow their titles. Names cannot look like a title: each line of a table has
/// commas.
fn parse_sections(lines: &[&[u8]], zone: &impl TimeZone) -> Result<Status, StatusError> {
    let mut status = Status::default();
    let find = |title: &[u8]| lines.iter().position(|line| *line == title);
    let routes = find(b"ROUTING TABLE").ok_or(StatusError::Missing("routing table"))?;
    let end = find(b"GLOBAL STATS").unwrap_or(lines.len());
    if routes < 3 || end < routes + 2 {
        return Err(StatusError::Missing("header"));
    }
    let updated = lines[1].strip_prefix(b"Updated,").and_then(|time| seconds(time, zone));
    status.updated = updated.ok_or(StatusError::Line { line: 2, problem: "expected the time" })?;
    for (header, until, wanted, is_client) in
        [(2, routes, &CLIENT_COLUMNS[..], true), (routes + 1, end, &ROUTE_COLUMNS[..], false)]
    {
        let error = |at: usize, problem| StatusError::Line { line: at + 1, problem };
        let columns = Columns::read(lines[header], b',', wanted);
        let columns = columns.ok_or_else(|| error(header, "columns are missing"))?;
        for (at, line) in lines.iter().enumerate().take(until).skip(header + 1) {
            let add = if is_client { add_client } else { add_route };
            add(&mut status, columns.line(line), zone).map_err(|problem| error(at, problem))?;
        }
    }
    let addresses: HashMap<_, _> = status
        .routes
        .iter()
        .rev()
        .filter(|route| !route.virtual_address.contains(['/', 'C']))
        .map(|route| ((&*route.common_name, &*route.real_address), &*route.virtual_address))
        .collect();
    for client in &mut status.clients {
        let address = addresses.get(&(&*client.common_name, &*client.real_address));
        client.virtual_address = address.map(|address| (*address).to_owned()).unwrap_or_default();
    }
    Ok(status)
}

fn split(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == separator)?;
    Some((&line[..at], &line[at + 1..]))
}

fn add_client(status: &mut Status, reading: Reading<'_>, zone: &impl TimeZone) -> Result<(), &'static str> {
    let values = match reading {
        Reading::Values(values) => values,
        Reading::Ambiguous => {
            status.ambiguous += 1;
            return Ok(());
        }
        Reading::Malformed => return Err("the line of a client does not fit its header"),
    };
    if values.get(Column::CommonName) == Some(UNDEFINED.as_bytes()) {
        status.pending += 1;
        return Ok(());
    }
    let bytes = |values: &Values<'_>, column| values.get(column).and_then(number).unwrap_or_default();
    status.clients.push(Client {
        common_name: values.text(Column::CommonName),
        real_address: values.text(Column::RealAddress),
        virtual_address: values.text(Column::VirtualAddress),
        received: bytes(&values, Column::Received),
        sent: bytes(&values, Column::Sent),
        connected_since: values.time(zone),
        username: values.text(Column::Username),
        id: values.get(Column::ClientId).and_then(number),
    });
    Ok(())
}

fn add_route(status: &mut Status, reading: Reading<'_>, zone: &impl TimeZone) -> Result<(), &'static str> {
    match reading {
        Reading::Values(values) => status.routes.push(Route {
            virtual_address: values.text(Column::VirtualAddress),
            common_name: values.text(Column::CommonName),
            real_address: values.text(Column::RealAddress),
            last_reference: values.time(zone),
        }),
        // Routes are not counted.
        Reading::Ambiguous => {}
        Reading::Malformed => return Err("the line of a route does not fit its header"),
    }
    Ok(())
}
