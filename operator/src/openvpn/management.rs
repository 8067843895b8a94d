//! The line protocol of OpenVPN's management interface.
//!
//! An external value, such as a common name, never ends a command or begins another one. Only complete answers are
//! returned.

use thiserror::Error;

/// The largest size of an answer, enough for the status of 50,000 clients.
const MAX_ANSWER: usize = 16 << 20;
/// The largest size of a name in the command `kill`: OpenVPN cuts longer ones.
const MAX_NAME: usize = 127;
const PASSWORD_PROMPT: &[u8] = b"ENTER PASSWORD:";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask for the status in version 3.
    Status,
    /// Tell the client of a session to connect anew. Its session ends after some seconds even if it does not.
    ClientKill(u64),
    /// End the sessions with a common name at once, without telling their clients.
    Kill(CommonName),
    /// End OpenVPN.
    Terminate,
}

impl Command {
    /// Returns the command as a line.
    pub fn line(&self) -> String {
        match self {
            Self::Status => "status 3\n".into(),
            Self::ClientKill(id) => format!("client-kill {id}\n"),
            Self::Kill(CommonName(quoted)) => format!("kill {quoted}\n"),
            Self::Terminate => "signal SIGTERM\n".into(),
        }
    }

    /// Whether the answer has several lines, up to `END`.
    fn has_lines(&self) -> bool {
        *self == Self::Status
    }
}

/// A common name that can be the parameter of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonName(String);

/// The name cannot be the parameter of a command: it is empty, has more than 127 bytes, or contains a control character
/// or a colon, with which OpenVPN takes it for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the common name cannot be the parameter of a command")]
pub struct NotAParameter;

impl CommonName {
    /// Quotes a name.
    ///
    /// # Errors
    /// If it cannot be the parameter of a command.
    pub fn new(name: &str) -> Result<Self, NotAParameter> {
        let is_allowed = |c: char| !c.is_control() && c != ':';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_allowed) {
            return Err(NotAParameter);
        }
        Ok(Self(format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))))
    }
}

/// A line from OpenVPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An unsolicited message, such as the greeting `>INFO:`, `>CLIENT:` and `>LOG:`.
    Notification(String),
    /// A command succeeded.
    Success(String),
    /// A command failed.
    Error(String),
    /// The end of an answer with several lines.
    End,
    /// A line of an answer.
    Text(Vec<u8>),
}

/// The reason why the conversation cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The interface wants a password.
    #[error("the management interface asks for a password")]
    Password,
    /// The answer is larger than any status.
    #[error("the answer of the management interface is too large")]
    TooLarge,
    /// A line comes that answers no command.
    #[error("unexpected answer of the management interface")]
    Unexpected,
}

/// Splits what OpenVPN sends into lines.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the next line begins.
    from: usize,
    /// Up to where there is no end of that line.
    searched: usize,
}

impl Decoder {
    /// Adds what was received.
    ///
    /// # Errors
    /// If there is no end of the line for long, or if OpenVPN asks for a password.
    pub fn push(&mut self, received: &[u8]) -> Result<(), ProtocolError> {
        self.bytes.drain(..self.from);
        self.searched -= self.from;
        self.from = 0;
        self.bytes.extend_from_slice(received);
        if self.bytes.len() > MAX_ANSWER {
            return Err(ProtocolError::TooLarge);
        }
        // The only message without an end of line.
        if self.bytes.starts_with(PASSWORD_PROMPT) { Err(ProtocolError::Password) } else { Ok(()) }
    }

    /// Returns the next line that is complete.
    pub fn next_line(&mut self) -> Option<Line> {
        let Some(length) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + length;
        let line = &self.bytes[self.from..end];
        let line = Line::parse(line.strip_suffix(b"\r").unwrap_or(line));
        self.from = end + 1;
        self.searched = self.from;
        Some(line)
    }
}

impl Line {
    fn parse(line: &[u8]) -> Self {
        let text = |rest: &[u8]| String::from_utf8_lossy(rest).trim().to_owned();
        if let Some(rest) = line.strip_prefix(b">") {
            Self::Notification(text(rest))
        } else if let Some(rest) = line.strip_prefix(b"SUCCESS:") {
            Self::Success(text(rest))
        } else if let Some(rest) = line.strip_prefix(b"ERROR:") {
            Self::Error(text(rest))
        } else if line == b"END" {
            Self::End
        } else {
            Self::Text(line.to_vec())
        }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command succeeded.
    Success(String),
    /// OpenVPN refuses the command, or found nothing to end.
    Refused(String),
    /// The lines of the answer, with the line `END`.
    Text(Vec<u8>),
}

/// Collects the answer to a command.
#[derive(Clone, Debug)]
pub struct Exchange {
    has_lines: bool,
    text: Vec<u8>,
}

impl Exchange {
    /// Expects the answer to a command.
    pub fn new(command: &Command) -> Self {
        Self { has_lines: command.has_lines(), text: Vec::new() }
    }

    /// Takes a line, and returns the answer if this line completes it. Skips unsolicited messages.
    ///
    /// # Errors
    /// If the line answers something else, or if the answer is too large.
    pub fn take(&mut self, line: Line) -> Result<Option<Answer>, ProtocolError> {
        match line {
            Line::Notification(_) => Ok(None),
            Line::Error(reason) if self.text.is_empty() => Ok(Some(Answer::Refused(reason))),
            Line::Success(text) if !self.has_lines => Ok(Some(Answer::Success(text))),
            Line::End if self.has_lines => {
                self.text.extend_from_slice(b"END\n");
                Ok(Some(Answer::Text(std::mem::take(&mut self.text))))
            }
            Line::Text(text) if self.has_lines => {
                self.text.extend_from_slice(&text);
                self.text.push(b'\n');
                if self.text.len() > MAX_ANSWER { Err(ProtocolError::TooLarge) } else { Ok(None) }
            }
            _ => Err(ProtocolError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const GREETING: &str = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n";

    /// Plays a conversation that arrives in pieces.
    fn play(received: &[u8], piece: usize, commands: &[Command]) -> Result<Vec<Answer>, ProtocolError> {
        let mut decoder = Decoder::default();
        let mut exchanges = commands.iter().map(Exchange::new).peekable();
        let mut answers = Vec::new();
        for piece in received.chunks(piece) {
            decoder.push(piece)?;
            while let Some(line) = decoder.next_line() {
                let Some(exchange) = exchanges.peek_mut() else { return Ok(answers) };
                if let Some(answer) = exchange.take(line)? {
                    answers.push(answer);
                    exchanges.next();
                }
            }
        }
        Ok(answers)
    }

    fn kill(name: &str) -> Command {
        Command::Kill(CommonName::new(name).expect("a parameter"))
    }

    #[test]
    fn commands_are_lines() {
        assert_eq!(Command::Status.line(), "status 3\n");
        assert_eq!(Command::ClientKill(7).line(), "client-kill 7\n");
        assert_eq!(Command::Terminate.line(), "signal SIGTERM\n");
        assert_eq!(kill("laptop").line(), "kill \"laptop\"\n");
        assert_eq!(kill(r#"a "b" \ #;'"#).line(), "kill \"a \\\"b\\\" \\\\ #;'\"\n");
        for name in ["", "a\nsignal SIGTERM", "a\rb", "a\0", "10.0.0.1:80", &"x".repeat(128)] {
            assert_eq!(CommonName::new(name), Err(NotAParameter), "{name:?}");
        }
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let received = format!(
            "{GREETING}TITLE\tx\r\n>CLIENT:ESTABLISHED,1\r\nTIME\ta\t1\r\nEND\r\n>LOG:1,I,END\r\n\
             SUCCESS: client-kill command succeeded\r\nERROR: common name 'b' not found\r\n"
        );
        let commands = [Command::Status, Command::ClientKill(1), kill("b")];
        for piece in [1, 2, 7, 1000] {
            let answers = play(received.as_bytes(), piece, &commands).expect("answers");
            let expected = [
                Answer::Text(b"TITLE\tx\nTIME\ta\t1\nEND\n".to_vec()),
                Answer::Success("client-kill command succeeded".into()),
                Answer::Refused("common name 'b' not found".into()),
            ];
            assert_eq!(answers, expected, "{piece}");
        }
        let refused = "ERROR: The 'status' command is not supported by the current daemon mode";
        let answers = play(format!("{refused}\r\n").as_bytes(), 9, &[Command::Status]).expect("an answer");
        assert_eq!(answers, [Answer::Refused(refused[7..].into())]);
    }

    #[test]
    fn other_answers_are_refused() {
        assert_eq!(play(b"ENTER PASSWORD:", 100, &[Command::Status]), Err(ProtocolError::Password));
        assert_eq!(play(b"END\n", 1, &[Command::ClientKill(1)]), Err(ProtocolError::Unexpected));
        assert_eq!(play(b"TITLE\tx\nERROR: y\n", 1, &[Command::Status]), Err(ProtocolError::Unexpected));
        let endless = vec![b'x'; MAX_ANSWER + 1];
        assert_eq!(play(&endless, 1 << 20, &[Command::Status]), Err(ProtocolError::TooLarge));
        let lines = "x\n".repeat(MAX_ANSWER / 2 + 1);
        assert_eq!(play(lines.as_bytes(), 1 << 20, &[Command::Status]), Err(ProtocolError::TooLarge));
    }

    /// Reads a parameter as OpenVPN does.
    fn unquoted(line: &str) -> Option<String> {
        let mut chars = line.strip_prefix("kill \"")?.strip_suffix('\n')?.chars();
        let mut name = String::new();
        loop {
            match chars.next()? {
                '"' => return chars.next().is_none().then_some(name),
                '\\' => name.push(chars.next()?),
                c => name.push(c),
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_never_breaks_its_command(name in "(\\PC|[\"'\\\\ #;\n\r\t:]){0,40}") {
            if let Ok(parameter) = CommonName::new(&name) {
                let line = Command::Kill(parameter).line();
                prop_assert_eq!(line.matches(['\n', '\r', '\0']).count(), 1);
                prop_assert_eq!(unquoted(&line), Some(name));
            } else {
                let is_refused = |c: char| c.is_control() || c == ':';
                prop_assert!(name.is_empty() || name.len() > MAX_NAME || name.contains(is_refused));
            }
        }

        #[test]
        fn no_input_panics(
            bytes in vec(any::<u8>(), 0..200),
            text in "(>|SUCCESS:|ERROR:|END|[a-z\r\n]){0,40}",
            piece in 1..9_usize,
        ) {
            let commands = [Command::Status, Command::Terminate, Command::Status];
            let _ = (play(&bytes, piece, &commands), play(text.as_bytes(), piece, &commands));
        }
    }
}
