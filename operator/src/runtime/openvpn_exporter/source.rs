//! Where the status comes from: the management socket, or status files.
//!
//! However often the exporter is asked, OpenVPN is asked at most once a second, over one connection at a time. A
//! request that is given up does not change that.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::{sync::Mutex, time::Instant};

use super::{
    arguments::{ExporterArgs, MANAGEMENT},
    file,
};
use crate::{
    openvpn::{
        AgentSettings,
        killed::{KILLED_FILE, Killed},
        settings::SETTINGS_FILE,
        status::Status,
    },
    runtime::openvpn_server::{
        DRAINING_FILE,
        management::{Management, ManagementError},
    },
};

/// How long an answer is shared.
const SHARED: Duration = Duration::from_secs(1);
/// How long the last good answer replaces a missing one.
const LAST_GOOD: Duration = Duration::from_secs(30);
/// A status file of this age means that OpenVPN does not run. OpenVPN writes it at least once a minute.
const OLD: Duration = Duration::from_secs(180);

/// What is known about a server.
#[derive(Clone, Debug)]
pub struct Known {
    /// The value of the label `status_path`.
    pub path: String,
    /// The last status, unless it is too old.
    pub status: Option<Arc<Status>>,
    /// Whether the server works.
    pub is_ready: bool,
    /// Why the server does not work, or why the status is not the newest.
    pub problem: Option<String>,
}

/// What is known about all servers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The servers, with different paths.
    pub servers: Vec<Known>,
    /// Nobody listens on the management socket.
    pub is_gone: bool,
}

/// The last good answer, and when it came.
type LastGood = Option<(Instant, Arc<Status>)>;

#[derive(Debug, Default)]
struct Cache {
    asked: Option<Instant>,
    answer: Arc<Answer>,
    last_good: Vec<LastGood>,
}

/// Asks for the status.
#[derive(Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    management: Management,
    /// Whether the socket was asked for, or was there once.
    uses_management: AtomicBool,
    cache: Mutex<Cache>,
    config_dir: PathBuf,
    run_dir: PathBuf,
    ignores_individuals: bool,
    /// From which address others see connected clients.
    exit: Option<Ipv4Addr>,
}

impl Source {
    /// Uses what the arguments tell.
    pub fn new(args: &ExporterArgs) -> Self {
        let mut paths = args.status_paths.clone();
        let mut seen = std::collections::BTreeSet::new();
        // Two servers with one label cannot be told apart.
        paths.retain(|path| !path.as_os_str().is_empty() && seen.insert(path.clone()));
        let socket = args.management.clone().unwrap_or_else(|| MANAGEMENT.into());
        Self {
            paths,
            management: Management::new(socket),
            uses_management: args.management.is_some().into(),
            cache: Mutex::default(),
            config_dir: args.config_dir.clone(),
            run_dir: args.run_dir.clone(),
            ignores_individuals: args.ignore_individuals,
            exit: args.pod_ips.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            }),
        }
    }

    /// Whether the caller is a connected client.
    pub fn is_client(&self, caller: IpAddr) -> bool {
        match (caller.to_canonical(), self.settings()) {
            (IpAddr::V4(address), Some(settings)) => settings.clients.contains(&address),
            _ => false,
        }
    }

    /// Returns the address from which others see the caller. A connected client has that of the Pod, which translates
    /// addresses.
    pub fn address_of(&self, caller: IpAddr) -> IpAddr {
        match self.exit {
            Some(exit) if self.is_client(caller) => exit.into(),
            _ => caller.to_canonical(),
        }
    }

    /// Whether the status comes from the management socket. That stays so: it is also missing when OpenVPN has ended.
    pub fn uses_management(&self) -> bool {
        if !self.uses_management.load(Ordering::Relaxed) && self.management.path().exists() {
            self.uses_management.store(true, Ordering::Relaxed);
        }
        self.uses_management.load(Ordering::Relaxed)
    }

    /// Returns the status, which is at most a second old unless there is none.
    pub async fn ask(self: &Arc<Self>) -> Arc<Answer> {
        let source = self.clone();
        // In a task of its own, because the caller may give up.
        let answer = tokio::spawn(async move {
            let mut cache = source.cache.lock().await;
            if cache.asked.is_none_or(|asked| asked.elapsed() >= SHARED) {
                cache.answer = Arc::new(source.ask_now(&mut cache.last_good).await);
                cache.asked = Some(Instant::now());
            }
            cache.answer.clone()
        });
        answer.await.unwrap_or_default()
    }

    async fn ask_now(&self, last_good: &mut Vec<LastGood>) -> Answer {
        if self.uses_management() {
            let path = self.paths.first().map(PathBuf::as_path).unwrap_or(self.management.path());
            last_good.resize(1, None);
            let asked = self.management.status().await;
            let is_gone = matches!(asked, Err(ManagementError::Gone(_)));
            // OpenVPN that is busy for a moment is no reason to cut all sessions, as an unready Pod does.
            let is_ready = |is_known: bool| is_known && !is_gone;
            let server = known(path, asked.map_err(|error| error.to_string()), &mut last_good[0], Instant::now());
            let server = Known { is_ready: is_ready(server.status.is_some()), ..server };
            return Answer { servers: vec![server], is_gone };
        }
        last_good.resize(self.paths.len(), None);
        let files = join_all(self.paths.iter().map(|path| file::read(path))).await;
        let now = Instant::now();
        let servers = self.paths.iter().zip(files).zip(last_good).map(|((path, read), last_good)| {
            let is_ready = read.as_ref().is_ok_and(|file| file.written.elapsed().is_ok_and(|age| age < OLD));
            let read = read.map(|file| file.status).map_err(|error| error.to_string());
            Known { is_ready, ..known(path, read, last_good, now) }
        });
        Answer { servers: servers.collect(), is_gone: false }
    }

    /// Reads the settings of the agent, if there are any.
    pub fn settings(&self) -> Option<AgentSettings> {
        let text = fs::read_to_string(self.config_dir.join(SETTINGS_FILE)).ok()?;
        AgentSettings::parse(&text).inspect_err(|error| tracing::warn!(%error, "{SETTINGS_FILE} is malformed")).ok()
    }

    /// Whether names and addresses of clients may be shown.
    pub fn shows_individuals(&self, settings: Option<&AgentSettings>) -> bool {
        !self.ignores_individuals && settings.is_none_or(|settings| settings.individuals)
    }

    /// Whether the agent waits for sessions to end.
    pub fn is_draining(&self) -> bool {
        self.run_dir.join(DRAINING_FILE).exists()
    }

    /// Reads the numbers of ended sessions, if there is an agent.
    pub fn killed(&self) -> io::Result<Killed> {
        Ok(serde_json::from_slice(&fs::read(self.run_dir.join(KILLED_FILE))?)?)
    }
}

/// Combines what was asked with the last good answer.
fn known(path: &Path, asked: Result<Status, String>, last_good: &mut LastGood, now: Instant) -> Known {
    let problem = match asked {
        Ok(status) => {
            *last_good = Some((now, Arc::new(status)));
            None
        }
        Err(problem) => {
            tracing::warn!("{}: {problem}", path.display());
            last_good.take_if(|(when, _)| now.duration_since(*when) >= LAST_GOOD);
            Some(problem)
        }
    };
    let status = last_good.as_ref().map(|(_, status)| status.clone());
    Known { path: path.to_string_lossy().into_owned(), status, is_ready: false, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_answer_stands_in_for_30_seconds() {
        let (started, mut last_good) = (Instant::now(), None);
        let mut ask = |second: u64, asked: Result<Status, String>| {
            let now = started + Duration::from_secs(second);
            known(Path::new("/a"), asked, &mut last_good, now).status.is_some()
        };
        let problem = || Err("no".to_owned());
        assert!(!ask(0, problem()));
        assert!(ask(1, Ok(Status::default())));
        assert!(ask(30, problem()));
        assert!(!ask(31, problem()));
        assert!(!ask(32, problem()));
        assert!(ask(33, Ok(Status::default())));
    }
}
