//! Connections to the management socket of OpenVPN.
//!
//! OpenVPN talks to one client at a time, and two processes of a Pod want to: connections are short, and whoever comes
//! second waits.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use crate::openvpn::{
    management::{Answer, Command, Decoder, Exchange, Line, ProtocolError},
    status::{Status, StatusError},
};

/// How long to wait while OpenVPN talks to somebody else.
const TURN: Duration = Duration::from_secs(2);
/// How long to wait for the answers.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// The reason why there is no answer.
#[derive(Debug, Error)]
pub enum ManagementError {
    /// Nobody listens.
    #[error("OpenVPN does not listen on its management socket: {0}")]
    Gone(io::Error),
    /// OpenVPN does not take the connection: it talks to somebody else, or hangs.
    #[error("OpenVPN does not take connections to its management socket")]
    Busy,
    /// OpenVPN took the connection, but does not answer.
    #[error("OpenVPN does not answer on its management socket")]
    Silent,
    /// The connection failed, or ended early.
    #[error("the connection to OpenVPN's management socket failed: {0}")]
    Connection(#[from] io::Error),
    /// The data does not follow the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// OpenVPN refuses a command.
    #[error("OpenVPN refuses the command: {0}")]
    Refused(String),
    /// The status is not complete.
    #[error(transparent)]
    Status(#[from] StatusError),
}

/// The management socket.
#[derive(Debug)]
pub struct Management {
    path: PathBuf,
    turn: Mutex<()>,
}

impl Management {
    /// Uses the socket at a path, which may not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), turn: Mutex::new(()) }
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// If there is no answer, or if it is not complete.
    pub async fn status(&self) -> Result<Status, ManagementError> {
        match self.run(&[Command::Status]).await?.pop() {
            Some(Answer::Text(text)) => Ok(Status::parse(&text)?),
            Some(Answer::Refused(reason)) => Err(ManagementError::Refused(reason)),
            _ => Err(ProtocolError::Unexpected.into()),
        }
    }

    /// Sends commands over one connection, and returns the answer to each.
    ///
    /// # Errors
    /// If an answer is missing. Commands before may have had an effect.
    pub async fn run(&self, commands: &[Command]) -> Result<Vec<Answer>, ManagementError> {
        let _turn = self.turn.lock().await;
        let mut connection = Connection::open(&self.path).await?;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(connection.ask(command).await?);
        }
        Ok(answers)
    }
}

struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects, and waits for the greeting, which comes when it is our turn.
    async fn open(path: &Path) -> Result<Self, ManagementError> {
        let deadline = Instant::now() + TURN;
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                // One connection waits already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() + PAUSE >= deadline {
                        return Err(ManagementError::Busy);
                    }
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    return Err(match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ManagementError::Gone(error),
                        _ => error.into(),
                    });
                }
            }
        };
        let mut connection = Self { stream, decoder: Decoder::default() };
        match timeout_at(deadline, connection.line()).await {
            Ok(Ok(Line::Notification(_))) => Ok(connection),
            Ok(Ok(_)) => Err(ProtocolError::Unexpected.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ManagementError::Busy),
        }
    }

    async fn ask(&mut self, command: &Command) -> Result<Answer, ManagementError> {
        let deadline = Instant::now() + ANSWER;
        let exchange = async {
            self.stream.write_all(command.line().as_bytes()).await?;
            let mut exchange = Exchange::new(command);
            loop {
                if let Some(answer) = exchange.take(self.line().await?)? {
                    return Ok(answer);
                }
            }
        };
        timeout_at(deadline, exchange).await.unwrap_or(Err(ManagementError::Silent))
    }

    async fn line(&mut self) -> Result<Line, ManagementError> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(line) = self.decoder.next_line() {
                return Ok(line);
            }
            match self.stream.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                length => self.decoder.push(&buffer[..length])?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use tokio::net::UnixListener;

    use super::*;

    const GREETING: &[u8] = b">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n";

    #[tokio::test]
    async fn nobody_listens_is_told_apart_from_silence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let management = Management::new(&path);
        assert!(matches!(management.status().await, Err(ManagementError::Gone(_))));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(management.status().await, Err(ManagementError::Busy)), "no greeting");
        drop(listener);
        assert!(matches!(management.status().await, Err(ManagementError::Gone(_))), "the file stays");
    }

    #[tokio::test]
    async fn a_silent_or_broken_answer_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let management = Management::new(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            for broken in [false, true] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(GREETING).await.unwrap();
                stream.write_all(b"TITLE\tOpenVPN\r\n").await.unwrap();
                if !broken {
                    sleep(Duration::from_secs(2)).await;
                }
            }
        });
        assert!(matches!(management.status().await, Err(ManagementError::Silent)));
        assert!(matches!(management.status().await, Err(ManagementError::Connection(_))));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_second_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The other one comes meanwhile, and has 20 times as long to wait for its turn.
                sleep(PAUSE * 2).await;
                stream.write_all(GREETING).await.unwrap();
                let mut command = [0; 14];
                stream.read_exact(&mut command).await.unwrap();
                stream.write_all(b"SUCCESS: client-kill command succeeded\r\n").await.unwrap();
            }
        });
        // As of two processes.
        let all: Vec<_> = (0..2).map(|_| Management::new(&path)).collect();
        let answers = futures::future::join_all(all.iter().map(|one| one.run(&[Command::ClientKill(1)]))).await;
        for answer in answers {
            assert!(matches!(answer.unwrap()[..], [Answer::Success(_)]));
        }
        server.await.unwrap();
    }
}
