//! The audit log of the API server. It has every request, so tests can count requests exactly.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::{auth::Identity, wait::TIMEOUT};

/// The prefix of the object names in requests that mark a position in the log.
const MARKER: &str = "e2e-audit-mark-";
/// The interval between two reads of the log file.
const POLL: Duration = Duration::from_millis(5);

/// The audit log of one control plane.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    admin: Identity,
}

/// A position in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// The kind of access, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// get, list, and reads of non-resource URLs.
    Read,
    /// Every request that may change something, even if it failed.
    Write,
    /// The start of a watch. Its end is not counted.
    Watch,
}

/// A finished request, or a watch that began.
#[derive(Clone, Debug)]
pub struct Request {
    /// The user's name, such as `system:serviceaccount:ns:name`.
    pub user: String,
    /// The user agent of the client.
    pub user_agent: String,
    /// The verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural name of the resource, such as `pods`. Empty for non-resource URLs.
    pub resource: String,
    /// The subresource, such as `status`, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name of the object, or empty.
    pub name: String,
    /// The path and query.
    pub uri: String,
    /// The HTTP status.
    pub code: u16,
    /// When the API server received the request.
    pub received: Timestamp,
    /// When the API server answered the request.
    pub answered: Timestamp,
}

impl Request {
    /// The kind of access.
    pub fn access(&self) -> Access {
        match self.verb.as_str() {
            "watch" => Access::Watch,
            "get" | "list" | "head" | "options" => Access::Read,
            _ => Access::Write,
        }
    }

    fn is_marker(&self) -> bool {
        self.name.starts_with(MARKER)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} -> {}", self.received, self.user, self.verb, self.uri, self.code)
    }
}

/// Which requests to count. A request passes when it meets all conditions that are set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The user's name.
    pub user: Option<String>,
    /// Reads, writes or watches.
    pub access: Option<Access>,
    /// The verb.
    pub verb: Option<String>,
    /// The plural, such as `pods`.
    pub resource: Option<String>,
    /// The subresource; `Some("")` is the object itself.
    pub subresource: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident),*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, value: impl Into<String>) -> Self {
            self.$field = Some(value.into());
            self
        }
    )*};
}

impl Filter {
    setters! {
        /// Only requests of this user.
        user,
        /// Only requests with this verb.
        verb,
        /// Only requests for this resource.
        resource,
        /// Only requests for this subresource; the empty string means the object itself.
        subresource,
        /// Only requests in this namespace.
        namespace,
        /// Only requests for the object of this name.
        name
    }

    /// Only reads, writes or watches.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Whether a request meets all conditions.
    pub fn matches(&self, request: &Request) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.user, &request.user)
            && self.access.is_none_or(|access| access == request.access())
            && same(&self.verb, &request.verb)
            && same(&self.resource, &request.resource)
            && same(&self.subresource, &request.subresource)
            && same(&self.namespace, &request.namespace)
            && same(&self.name, &request.name)
    }
}

/// Requests in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct Requests(Vec<Request>);

impl Requests {
    /// The requests that pass a filter.
    pub fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Request> {
        self.0.iter().filter(|request| filter.matches(request))
    }

    /// The number of requests that pass a filter.
    pub fn count(&self, filter: &Filter) -> usize {
        self.matching(filter).count()
    }

    /// The number of requests that pass a filter, by access, verb, and resource. Meant for messages.
    pub fn summary(&self, filter: &Filter) -> BTreeMap<(Access, String, String), usize> {
        let mut summary = BTreeMap::new();
        for request in self.matching(filter) {
            let resource = match request.subresource.as_str() {
                "" => request.resource.clone(),
                subresource => format!("{}/{subresource}", request.resource),
            };
            *summary.entry((request.access(), request.verb.clone(), resource)).or_default() += 1;
        }
        summary
    }

    /// Returns a line for each user, verb and resource: the number of requests and the mean time to an answer. Watches are
    /// left out.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<_, (usize, f64)> = BTreeMap::new();
        for request in self.0.iter().filter(|request| request.access() != Access::Watch) {
            let row = (&request.user, &request.resource, &request.subresource, &request.verb, request.code);
            let (count, seconds) = rows.entry(row).or_default();
            *count += 1;
            *seconds += request.answered.duration_since(request.received).as_secs_f64();
        }
        let line = |((user, resource, subresource, verb, code), (count, seconds)): (_, (usize, f64))| {
            let milliseconds = seconds / count as f64 * 1000.0;
            format!("{count:>6} {milliseconds:>7.1} ms  {user} {verb} {resource} {subresource} -> {code}\n")
        };
        rows.into_iter().map(line).collect()
    }

    /// All requests.
    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.0.iter()
    }
}

/// A client is idle when it has sent no request for this long. The audit log has a request when it ends, and the operator
/// gives each of them five seconds.
const IDLE: Duration = Duration::from_secs(6);

impl AuditLog {
    /// Waits until these users have sent no request for six seconds, other than watches and renewals of leases.
    ///
    /// # Errors
    /// If that does not happen within `limit`.
    pub async fn settled(&self, users: &[String], limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let mark = self.mark().await?;
            sleep(IDLE).await;
            let requests = self.since(mark).await?;
            let counts = |one: &Request| one.access() != Access::Watch && one.resource != "leases";
            if !requests.iter().any(|one| users.contains(&one.user) && counts(one)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{users:?} never became idle");
        }
    }

    pub(crate) fn new(path: PathBuf, admin: Identity) -> Self {
        Self { path, admin }
    }

    /// Marks the current position.
    pub async fn mark(&self) -> Result<Mark> {
        // The mark is the position before the marker request: a request that is answered in the meantime comes after the
        // mark.
        let end = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        self.read_synced(end).await.map(|(mark, _)| mark)
    }

    /// All requests that ended between `mark` and this call, except for marker requests.
    pub async fn since(&self, mark: Mark) -> Result<Requests> {
        let (_, requests) = self.read_synced(mark.0).await?;
        Ok(Requests(requests.into_iter().filter(|request| !request.is_marker()).collect()))
    }

    /// Sends a request with a unique name, and reads from `start` until the log has it. The API server writes an event before
    /// it finishes the request, so the log then has all requests that were answered earlier.
    async fn read_synced(&self, start: u64) -> Result<(Mark, Vec<Request>)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{MARKER}{}-{count}-{}", std::process::id(), Timestamp::now().as_nanosecond());
        let objects: Api<ConfigMap> = Api::namespaced(self.admin.client()?, "default");
        let deadline = Instant::now() + TIMEOUT;
        while let Err(error) = objects.get_opt(&marker).await {
            ensure!(Instant::now() < deadline, "cannot mark the audit log: {error}");
            sleep(POLL).await;
        }

        let mut lines = Lines::from(start);
        let mut requests = Vec::new();
        loop {
            for (end, line) in lines.read(&self.path)? {
                if let Some(request) = parse(&line)? {
                    if request.name == marker {
                        return Ok((Mark(end), requests));
                    }
                    requests.push(request);
                }
            }
            if Instant::now() > deadline {
                bail!("no request {marker} in {} after {} s", self.path.display(), TIMEOUT.as_secs());
            }
            sleep(POLL).await;
        }
    }
}

/// The lines of a file that grows.
struct Lines {
    position: u64,
    /// Whether the next line begins before the requested position.
    skips: bool,
}

impl Lines {
    /// Begins with the first line that begins at this position or later. The length of the file may have been taken while
    /// a line was being written.
    fn from(position: u64) -> Self {
        Self { position: position.saturating_sub(1), skips: position > 0 }
    }

    /// Returns the next lines, and where they end. A line without a newline is still being written.
    fn read(&mut self, path: &Path) -> io::Result<Vec<(u64, String)>> {
        let mut file = BufReader::new(File::open(path)?);
        file.seek(SeekFrom::Start(self.position))?;
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.position += line.len() as u64;
            if !std::mem::take(&mut self.skips) {
                lines.push((self.position, String::from_utf8_lossy(&line).into_owned()));
            }
            line.clear();
        }
        Ok(lines)
    }
}

/// Parses a line of the log. Returns `None` for an event that is not counted.
fn parse(line: &str) -> Result<Option<Request>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        stage: String,
        #[serde(rename = "requestURI")]
        uri: String,
        verb: String,
        user: User,
        #[serde(default)]
        user_agent: String,
        #[serde(default)]
        object_ref: ObjectRef,
        #[serde(default)]
        response_status: Status,
        request_received_timestamp: Timestamp,
        stage_timestamp: Timestamp,
    }
    #[derive(Deserialize)]
    struct User {
        #[serde(default)]
        username: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct ObjectRef {
        api_group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        code: u16,
    }

    let event: Event = serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
    // A watch counts when it starts, any other request when it ends. Other long-running requests (logs, exec) have both
    // stages too.
    let counted = if event.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    if event.stage != counted && event.stage != "Panic" {
        return Ok(None);
    }
    Ok(Some(Request {
        user: event.user.username,
        user_agent: event.user_agent,
        verb: event.verb,
        group: event.object_ref.api_group,
        resource: event.object_ref.resource,
        subresource: event.object_ref.subresource,
        namespace: event.object_ref.namespace,
        name: event.object_ref.name,
        uri: event.uri,
        code: event.response_status.code,
        received: event.request_received_timestamp,
        answered: event.stage_timestamp,
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn reading_begins_with_a_whole_line_and_goes_on_when_one_is_complete() -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        write!(file, "first é\nsecond\nthi")?;
        let texts = |lines: &mut Lines, path: &Path| -> Result<Vec<String>> {
            Ok(lines.read(path)?.into_iter().map(|(_, line)| line).collect())
        };
        // 7 is in the middle of a character.
        for (start, expected) in [(0, 2), (1, 1), (7, 1), (8, 1), (9, 1), (10, 0), (16, 0), (19, 0)] {
            let lines = texts(&mut Lines::from(start), file.path())?;
            ensure!(lines == ["first é\n", "second\n"][2 - expected..], "from {start}: {lines:?}");
        }
        let (mut inside, mut after) = (Lines::from(18), Lines::from(16));
        texts(&mut inside, file.path())?;
        texts(&mut after, file.path())?;
        write!(file, "rd\nfourth\n")?;
        ensure!(texts(&mut inside, file.path())? == ["fourth\n"]);
        let read = after.read(file.path())?;
        ensure!(read.iter().map(|(_, line)| &**line).eq(["third\n", "fourth\n"]));
        ensure!(read.last().map(|(end, _)| *end) == Some(fs::metadata(file.path())?.len()));
        Ok(())
    }
}
