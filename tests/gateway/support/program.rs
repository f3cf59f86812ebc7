//! The binary, in processes of its own.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Client, within_reason};

/// The binary with nothing of this environment that it would heed.
pub fn wsgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsgate"));
    command.args(arguments).env_clear().env("WSGATE_LOG_FORMAT", "text").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Arguments for ports that nobody else has.
pub const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0"];

/// A gateway in a process of its own.
pub struct Running {
    pub child: Child,
    pub public: String,
    pub backend: String,
}

impl Running {
    /// Waits until it says where it listens.
    pub async fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::of(command).await
    }

    /// The same, whatever it writes elsewhere than into its log.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = within_reason("the gateway to listen", async {
            loop {
                let line = log.next_line().await.unwrap().expect("it listens before it ends");
                if line.contains("listening") {
                    return line;
                }
            }
        })
        .await;
        let after = |name: &str| line.split_once(name).unwrap().1.split_whitespace().next().unwrap().to_owned();
        let (public, backend) = (after("public="), after("backend="));
        // The rest of the log is read, so that it never blocks.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, public, backend }
    }

    /// Connects by a token, and hears the welcome.
    pub async fn connect(&self, token: &str) -> Client {
        let mut client = Client::dial(self.public.parse().unwrap(), &format!("/ws?token={token}")).await;
        assert_eq!(client.receive().await["type"], "welcome");
        client
    }

    /// Ends it as a service manager does.
    pub async fn terminate(mut self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        assert!(within_reason("the end", self.child.wait()).await.unwrap().success());
    }
}

/// What a command comes to: whether it succeeded, and what it wrote.
pub async fn output(mut command: Command) -> (bool, String, String) {
    let output = within_reason("a command", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
