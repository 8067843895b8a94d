//! Requests to the HTTP servers of processes on this machine.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Returns the status code and the body of a response.
///
/// # Errors
/// If there is no response.
pub async fn ask(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok((head.split(' ').nth(1).context("no status")?.parse()?, body.to_owned()))
}

/// Returns the body of a response with the status code 200.
///
/// # Errors
/// If there is no such response.
pub async fn get(port: u16, path: &str) -> Result<String> {
    let (status, body) = ask(port, path).await?;
    ensure!(status == 200, "{path}: {status}: {body}");
    Ok(body)
}
